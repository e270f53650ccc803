"""Carrying out a pipeline: skip what is done, continue what was cut off, make the rest.

    key(stage) := fingerprint(stage name, version, configuration, seed, digest of its sources,
                              digests of its inputs, versions of its distributions)

Neither devices nor worker counts nor times are part of a key. Input digests are those of the files
themselves: a stage that is made again with the same outcome leaves everything after it valid.
"""

from __future__ import annotations

import contextlib
import dataclasses
import filecmp
import importlib.metadata
import os
import shutil
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from kpipe.atomic import replacing
from kpipe.core.executor import Executor, LocalExecutor
from kpipe.core.fingerprint import canonical, fingerprint
from kpipe.core.journal import Journal, Listener
from kpipe.core.lock import locked
from kpipe.core.pipeline import Pipeline
from kpipe.core.stage import Context, Stage
from kpipe.core.store import Entry, Store, disk_watched
from kpipe.errors import DataError, KpipeError

__all__ = ["PlannedStage", "Result", "plan", "run", "run_folder"]

Status = Literal["cached", "continues", "runs", "waits"]


@dataclasses.dataclass(frozen=True)
class PlannedStage:
    """What would happen to one stage.

    Attributes:
        stage: the stage's name.
        status: `cached`, `continues` (was cut off), `runs`, or `waits` (its key depends on what an
            earlier stage will give).
        why: the reason, in words.
    """

    stage: str
    status: Status
    why: str


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run left.

    Attributes:
        folder: the run's folder.
        made: names of the stages that ran.
        skipped: names of the stages whose results were there already.
    """

    folder: Path
    made: tuple[str, ...]
    skipped: tuple[str, ...]


class _Walk:
    """A pipeline gone through stage by stage: what each depends on, as far as it is known."""

    def __init__(self, pipeline: Pipeline, store: Store) -> None:
        self.pipeline = pipeline
        self.entries: list[Entry | None] = []
        self._links = pipeline.links()
        self._sources = [
            fingerprint({str(path): _source_digest(stage, path, store) for path in stage.sources()})
            for stage in pipeline.stages
        ]

    def run_name(self) -> str:
        """The same declaration over the same data is the same run."""
        configurations = [[stage.name, stage.configuration()] for stage in self.pipeline.stages]
        return fingerprint([configurations, self.pipeline.seed, self._sources])[:12]

    def unknown(self) -> list[str]:
        """Stages that the next one reads and that have no result yet."""
        read = {i for indices in self._links[len(self.entries)].values() for i in indices}
        return [self.pipeline.stages[i].name for i in sorted(read) if self.entries[i] is None]

    def inputs(self) -> dict[str, tuple[Entry, ...]]:
        """What the next stage reads: kind -> results, oldest first."""
        links = self._links[len(self.entries)]
        return {
            kind: tuple(entry for i in indices if (entry := self.entries[i]))
            for kind, indices in links.items()
        }

    def about(self) -> dict[str, Any]:
        """Everything that the key of the next stage is made of."""
        index = len(self.entries)
        stage = self.pipeline.stages[index]
        about: dict[str, Any] = canonical(
            {
                "stage": stage.name,
                "version": stage.version,
                "configuration": stage.configuration(),
                "seed": self.pipeline.seed,
                "sources": self._sources[index],
                "inputs": {
                    kind: [entry.digest for entry in found] for kind, found in self.inputs().items()
                },
                "distributions": {
                    name: importlib.metadata.version(name) for name in stage.packages
                },
            },
            where=stage.name,
        )
        return about


def plan(pipeline: Pipeline, root: Path) -> list[PlannedStage]:
    """What `run` would do now, stage by stage, and why.

    Args:
        pipeline: the declaration.
        root: the folder of all results, `saved_models`.
    """
    steps = []
    with _opened(root) as store:
        walk = _Walk(pipeline, store)
        for stage in pipeline.stages:
            entry = None
            if unknown := walk.unknown():
                step = PlannedStage(stage.name, "waits", f"for {', '.join(unknown)}")
            else:
                about = walk.about()
                key = fingerprint(about)
                entry = store.find(key)
                if entry:
                    step = PlannedStage(
                        stage.name, "cached", f"made from the same content: {key[:12]}"
                    )
                elif store.has_partial(key):
                    step = PlannedStage(stage.name, "continues", "was cut off before it finished")
                else:
                    step = PlannedStage(stage.name, "runs", _why(store, about))
            walk.entries.append(entry)
            steps.append(step)
    return steps


def run_folder(pipeline: Pipeline, root: Path) -> Path:
    """Where `run` keeps the run of this declaration over the data as it is now."""
    with _opened(root) as store:
        return root / pipeline.name / _Walk(pipeline, store).run_name()


def run(
    pipeline: Pipeline,
    root: Path,
    *,
    fresh: bool = False,
    executor: Executor | None = None,
    listeners: tuple[Listener, ...] = (),
) -> Result:
    """Carry out a pipeline.

    Args:
        pipeline: the declaration.
        root: the folder of all results, `saved_models`; made when missing.
        fresh: make every stage again, whatever is cached.
        executor: where stages run; this process by default.
        listeners: called with each journal event.

    Raises:
        KpipeError: what a stage refused.
        StoreError: the disk is full, or another run of this pipeline is at work.
    """
    executor = executor or LocalExecutor()
    made: list[str] = []
    skipped: list[str] = []
    with _opened(root) as store:
        walk = _Walk(pipeline, store)
        folder = root / pipeline.name / walk.run_name()
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock"):
            (folder / "pipeline.py").write_text(pipeline.render(), encoding="utf-8")
            journal = Journal(folder / "journal.jsonl", listeners)
            journal.record("run_started", pipeline=pipeline.name, seed=pipeline.seed, fresh=fresh)
            for stage in pipeline.stages:
                about = walk.about()
                key = fingerprint(about)
                entry = None if fresh else store.find(key)
                happened = "stage_skipped" if entry else "stage_finished"
                (skipped if entry else made).append(stage.name)
                if not entry:
                    begun = store.begin(key, fresh=fresh)
                    inputs = {
                        kind: tuple(e.folder for e in es) for kind, es in walk.inputs().items()
                    }
                    heard = journal.of(stage.name)
                    context = Context(begun, inputs, pipeline.seed, heard, store.shared)
                    _execute(executor, stage, context)
                    entry = store.commit(key, about)
                where = os.path.relpath(entry.folder, folder)
                journal.of(stage.name).record(happened, key=key, folder=where)
                walk.entries.append(entry)
            _publish(walk, folder)
            journal.record("run_finished", made=made, skipped=skipped)
    return Result(folder, tuple(made), tuple(skipped))


def _execute(executor: Executor, stage: Stage, context: Context) -> None:
    context.journal.record("stage_started", continues=any(context.folder.iterdir()))
    try:
        executor.execute(stage, context)
    except BaseException as error:
        told = str(error) if isinstance(error, KpipeError) else traceback.format_exc()
        # On a full disk the journal cannot be written either: the first error is the one to see.
        with contextlib.suppress(OSError):
            context.journal.record("stage_failed", error=type(error).__name__, detail=told)
        raise


def _publish(walk: _Walk, folder: Path) -> None:
    """Copy what the stages publish into the run's folder; of one name, the newest stage's file."""
    newest = {
        source.name: source
        for stage, entry in zip(walk.pipeline.stages, walk.entries, strict=True)
        for pattern in stage.publishes
        for source in (entry.folder.glob(pattern) if entry else ())
    }
    for name, source in newest.items():
        target = folder / name
        if not (target.exists() and filecmp.cmp(source, target)):
            with replacing(target) as temporary:
                shutil.copy2(source, temporary)


def _source_digest(stage: Stage, path: Path, store: Store) -> str:
    if not path.exists():
        raise DataError(
            f"{stage.name} reads {path}, which does not exist",
            expected="an existing file or folder",
            received=f"nothing at {path.absolute()}",
            fix="correct the path in the pipeline file; relative paths start where kpipe is called",
        )
    return store.digests.path(path)


def _why(store: Store, about: dict[str, Any]) -> str:
    """How this differs from the newest result of the same stage."""
    earlier = [entry.about for entry in store.entries() if entry.about["stage"] == about["stage"]]
    if not earlier:
        return "never made before"
    last = earlier[-1]
    changes = [
        f"{name} {last['configuration'].get(name)!r} -> {value!r}"
        for name, value in about["configuration"].items()
        if last["configuration"].get(name) != value
    ]
    changes += [
        f"{name} {last['distributions'].get(name)} -> {version}"
        for name, version in about["distributions"].items()
        if last["distributions"].get(name) != version
    ]
    if last["seed"] != about["seed"]:
        changes.append(f"seed {last['seed']} -> {about['seed']}")
    if last["version"] != about["version"]:
        changes.append("kpipe makes this stage differently now")
    words = {"sources": "the data changed", "inputs": "what it reads changed"}
    changes += [text for part, text in words.items() if last[part] != about[part]]
    return "differs from the last one: " + ", ".join(changes)


@contextlib.contextmanager
def _opened(root: Path) -> Iterator[Store]:
    with disk_watched(root):
        store = Store(root / ".cache")
        try:
            yield store
        finally:
            store.close()
