"""Run a pipeline: skip finished stages, resume interrupted ones, run the rest.

    key(stage) := fingerprint(stage name, version, configuration without `judged` fields, seed,
                              digest of its sources, digests of its inputs,
                              versions of its packages)

Devices, worker counts and times are not part of a key. Input digests are computed from the files: a
stage that runs again with the same outcome keeps all later results valid.

A stage may refuse its finished result, see `Stage.judge`. The result stays in the store, so it is
not made again; the files that it would publish are kept in `<run>/refused`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from kpipe.core.differences import difference
from kpipe.core.disk_errors import translate_disk_errors
from kpipe.core.executor import Executor, LocalExecutor
from kpipe.core.fingerprint import canonical, fingerprint
from kpipe.core.journal import Journal, Listener
from kpipe.core.lock import file_lock
from kpipe.core.making import Maker, wait_reporter
from kpipe.core.onednn import enable_onednn
from kpipe.core.pipeline import Pipeline
from kpipe.core.publishing import Result, judge, publish
from kpipe.core.sources import snapshot
from kpipe.core.store import Entry, Store
from kpipe.errors import KpipeError

__all__ = ["PlannedStage", "RunResult", "plan", "run", "run_folder"]

Status = Literal["cached", "continues", "refused", "runs", "waits"]
_MADE = ("cached", "refused")


@dataclasses.dataclass(frozen=True)
class PlannedStage:
    """What a run would do with one stage.

    Attributes:
        stage: the stage's name.
        status: `cached`, `continues` (it was interrupted), `refused` (its result is cached, and
            not accepted), `runs`, or `waits` (its key depends on the result of an earlier stage).
        why: the reason, in words.
        fetches: what a run would fetch for it, such as pretrained weights.
    """

    stage: str
    status: Status
    why: str
    fetches: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class RunResult:
    """The outcome of a run.

    Attributes:
        folder: the run's folder.
        made: names of the stages that ran.
        skipped: names of the stages whose results were cached.
    """

    folder: Path
    made: tuple[str, ...]
    skipped: tuple[str, ...]


class _KeyResolver:
    """Compute the key of one stage after another, from the results of the stages before it.

    `entries` holds one item per resolved stage: its result, or None if it has yet to run.
    """

    def __init__(self, pipeline: Pipeline, store: Store) -> None:
        self.pipeline = pipeline
        self.entries: list[Entry | None] = []
        self._links = pipeline.links()
        self.snapshots = [snapshot(stage, store.digests) for stage in pipeline.stages]
        self._sources = [found.digest() for found in self.snapshots]

    def run_name(self) -> str:
        """Return the name of the run: the same declaration on the same data is the same run."""
        configurations = [[stage.name, stage.configuration()] for stage in self.pipeline.stages]
        return fingerprint([configurations, self.pipeline.seed, self._sources])[:12]

    def pending(self) -> list[str]:
        """Return the stages that the next one reads and that have no result yet."""
        read = {i for indices in self._links[len(self.entries)].values() for i in indices}
        return [self.pipeline.stages[i].name for i in sorted(read) if self.entries[i] is None]

    def inputs(self) -> dict[str, tuple[Entry, ...]]:
        """Return the inputs of the next stage: kind -> results, oldest first."""
        links = self._links[len(self.entries)]
        return {
            kind: tuple(entry for i in indices if (entry := self.entries[i]))
            for kind, indices in links.items()
        }

    def about(self) -> dict[str, Any]:
        """Return everything that the key of the next stage is computed from."""
        index = len(self.entries)
        stage = self.pipeline.stages[index]
        return canonical(
            {
                "stage": stage.name,
                "version": stage.version,
                "configuration": {
                    name: value
                    for name, value in stage.configuration().items()
                    if name not in stage.judged
                },
                "seed": self.pipeline.seed,
                "sources": self._sources[index],
                "inputs": {
                    kind: [entry.digest for entry in entries]
                    for kind, entries in self.inputs().items()
                },
                "distributions": {
                    name: importlib.metadata.version(name) for name in stage.distributions()
                },
            },
            where=stage.name,
        )


def plan(pipeline: Pipeline, root: Path) -> list[PlannedStage]:
    """Return what `run` would do now with each stage, and why; the arguments are those of `run`.

    Raises:
        KpipeError: a file or package that a pending stage needs is missing.

    Example:
        >>> from pathlib import Path
        >>> from kpipe import Pipeline
        >>> from kpipe.core.runner import plan
        >>> from kpipe.stages import Data, Export, FineTune
        >>> stages = [Data("photos"), FineTune("MobileNetV2", weights=None), Export()]
        >>> pipeline = Pipeline("colors", stages)
        >>> for planned in plan(pipeline, Path("saved_models")):
        ...     print(planned.stage, planned.status, planned.why)
        Data runs has no earlier result
        FineTune waits for Data
        Export waits for Data, FineTune
    """
    with _open_store(root, create=False) as store:
        return _plan(_KeyResolver(pipeline, store), store)


def _plan(resolver: _KeyResolver, store: Store, *, fresh: bool = False) -> list[PlannedStage]:
    """Return what `plan` returns; with `fresh`, as if no stage had a result."""
    planned = []
    stages = resolver.pipeline.stages
    for index, stage in enumerate(stages):
        entry = None
        status: Status = "waits"
        if pending := resolver.pending():
            why = f"for {', '.join(pending)}"
        else:
            about = resolver.about()
            key = fingerprint(about)
            entry = None if fresh else store.find(key)
            if entry:
                status, why = "cached", f"has the same inputs: {key[:12]}"
                try:
                    stage.judge(entry.folder)
                except KpipeError as error:
                    status, why = "refused", error.what
            elif store.has_partial(key):
                status, why = "continues", "was interrupted before it finished"
            elif damage := store.damage(key):
                status, why = "runs", f"its result is damaged: {damage}"
            else:
                status, why = "runs", difference(store, about)
        resolver.entries.append(entry)
        fetches = () if entry else tuple(stage.check_surroundings(stages[:index]))
        planned.append(PlannedStage(stage.name, status, why, fetches))
    return planned


def run_folder(pipeline: Pipeline, root: Path) -> Path:
    """Return the folder that `run` would use for this declaration and the current data."""
    with _open_store(root, create=False) as store:
        return root / pipeline.name / _KeyResolver(pipeline, store).run_name()


def run(
    pipeline: Pipeline,
    root: Path,
    *,
    fresh: bool = False,
    executor: Executor | None = None,
    listeners: tuple[Listener, ...] = (),
) -> RunResult:
    """Run a pipeline.

    If another run is making a result that this one needs, this one waits for it and uses it, also
    with `fresh`.

    Args:
        pipeline: the declaration.
        root: the folder of all results, `saved_models`; created if missing.
        fresh: run every stage again, ignoring cached results.
        executor: where stages run; this process by default.
        listeners: called with each journal event.

    Raises:
        KpipeError: raised by a stage, which failed or refused its result.
        StoreError: the disk is full, or another run of this pipeline is in progress.
    """
    made: list[str] = []
    skipped: list[str] = []
    results: list[Result] = []
    with _open_store(root) as store:
        resolver = _KeyResolver(pipeline, store)
        planned = _plan(resolver, store, fresh=fresh)
        note = enable_onednn() if _computes(pipeline, planned) else ""
        _rehearse(pipeline, planned)
        resolver.entries.clear()
        folder = root / pipeline.name / resolver.run_name()
        folder.mkdir(parents=True, exist_ok=True)
        journal = Journal(folder / "journal.jsonl", listeners)
        maker = Maker(store, executor or LocalExecutor(), pipeline.seed, fresh)
        with file_lock(folder / ".lock"), store.in_use(wait_reporter(journal, "removing results")):
            (folder / "pipeline.py").write_text(pipeline.render(), encoding="utf-8")
            journal.record("run_started", pipeline=pipeline.name, seed=pipeline.seed, fresh=fresh)
            if note:
                journal.record("note", text=note)
            for stage in pipeline.stages:
                stage_journal = journal.for_stage(stage.name)
                about, inputs = resolver.about(), resolver.inputs()
                sources = resolver.snapshots[len(resolver.entries)]
                entry, runs = maker.result(stage, about, inputs, sources, stage_journal)
                (made if runs else skipped).append(stage.name)
                event = "stage_finished" if runs else "stage_skipped"
                path = os.path.relpath(entry.folder, folder)
                stage_journal.record(event, key=entry.key, folder=path)
                resolver.entries.append(entry)
                results.append((stage, entry))
                judge(results, folder, stage_journal)
            publish(results, folder)
            journal.record("run_finished", made=made, skipped=skipped)
    return RunResult(folder, tuple(made), tuple(skipped))


def _rehearse(pipeline: Pipeline, planned: Sequence[PlannedStage]) -> None:
    """Raise the error of a stage that would fail after the stages before it have run for hours.

    A stage that continues was rehearsed when it began.
    """
    for index, (stage, status) in enumerate(zip(pipeline.stages, planned, strict=True)):
        if status.status in ("runs", "waits"):
            stage.rehearse(pipeline.stages[:index])


def _computes(pipeline: Pipeline, planned: Sequence[PlannedStage]) -> bool:
    """Whether a stage that uses TensorFlow will run."""
    return any(
        "tensorflow" in stage.packages and status.status not in _MADE
        for stage, status in zip(pipeline.stages, planned, strict=True)
    )


@contextlib.contextmanager
def _open_store(root: Path, *, create: bool = True) -> Iterator[Store]:
    with translate_disk_errors(root):
        store = Store(root / ".cache", create=create)
        try:
            yield store
        finally:
            store.close()
