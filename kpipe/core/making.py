"""Make the result of one stage, or use the one that exists or that another run is making."""

from __future__ import annotations

import contextlib
import dataclasses
import traceback
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

from kpipe.core.executor import Executor
from kpipe.core.fingerprint import fingerprint
from kpipe.core.journal import Journal
from kpipe.core.sources import Snapshot, refuse_changes
from kpipe.core.stage import Context, Stage
from kpipe.core.store import Entry, Store, discard_partial
from kpipe.errors import KpipeError, StoreError

__all__ = ["Maker", "wait_reporter"]

# What reading a damaged file raises, besides the errors of kpipe and of the system.
_DAMAGE = (
    AttributeError,
    EOFError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)

Inputs = Mapping[str, tuple[Entry, ...]]


def wait_reporter(journal: Journal, what: str) -> Callable[[str], None]:
    """Return a function that reports that this run waits for a process, and for what."""
    return lambda holder: journal.progress("wait", text=f"waits for {holder}, which is {what}")


@dataclasses.dataclass(frozen=True)
class Maker:
    """Makes results.

    Attributes:
        store: where results are.
        executor: where stages run.
        seed: the pipeline's seed.
        fresh: make results again that existed before this object.
    """

    store: Store
    executor: Executor
    seed: int
    fresh: bool
    # key -> time of each earlier result. Not the time of this run: clocks can go backwards.
    _before: dict[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.fresh:
            self._before.update({one.key: one.committed_ns for one in self.store.entries()})

    def result(
        self,
        stage: Stage,
        about: dict[str, Any],
        inputs: Inputs,
        sources: Snapshot,
        journal: Journal,
    ) -> tuple[Entry, bool]:
        """Return the result of a stage, and whether this run made it.

        A result that another run has finished in the meantime counts as fresh.

        Args:
            stage: the stage.
            about: what the key is computed from.
            inputs: kind -> results that the stage reads.
            sources: the files outside the store that the key was computed from.
            journal: the journal of the stage.

        Raises:
            DataError: a source changed since the key was computed; the result is discarded.
            StoreError: an input changed since the key was computed; the result is discarded.
        """
        key = fingerprint(about)
        if entry := self._find(key):
            return entry, False
        wait = wait_reporter(journal, f"making the same result, {key[:12]}")
        with self.store.lock(key, wait):
            if entry := self._find(key):
                return entry, False
            context = Context(
                folder=self.store.begin(key, fresh=self.fresh),
                inputs={
                    kind: tuple(entry.folder_of(kind) for entry in entries)
                    for kind, entries in inputs.items()
                },
                seed=self.seed,
                journal=journal,
                shared=self.store.shared,
                digests=self.store.digests_file,
            )
            self._execute(stage, context, key, sources)
            self._refuse_changed(inputs, stage, context)
            return self.store.commit(key, about), True

    def _find(self, key: str) -> Entry | None:
        entry = self.store.find(key)
        if entry and self._before.get(entry.key) == entry.committed_ns:
            return None
        return entry

    def _execute(self, stage: Stage, context: Context, key: str, sources: Snapshot) -> None:
        continues = any(context.folder.iterdir())
        context.journal.record("stage_started", continues=continues, key=key)
        try:
            with refuse_changes(
                stage, sources, self.store.digests, context.folder, context.journal
            ):
                self.executor.execute(stage, context)
        except BaseException as error:
            detail = str(error) if isinstance(error, KpipeError) else traceback.format_exc()
            # On a full disk the journal cannot be written either; raise the first error.
            with contextlib.suppress(OSError):
                context.journal.record("stage_failed", error=type(error).__name__, detail=detail)
            if continues and isinstance(error, _DAMAGE):
                raise _cannot_continue(stage, context, error) from error
            raise

    def _refuse_changed(self, inputs: Inputs, stage: Stage, context: Context) -> None:
        for entry in (entry for entries in inputs.values() for entry in entries):
            now = self.store.find(entry.key)
            if now is None or now.digest != entry.digest:
                discard_partial(context.folder)
                raise StoreError(
                    f"an input of {stage.name} changed while it ran; its result is discarded",
                    expected=f"{entry.folder}, as it was when the stage started",
                    received=self.store.damage(entry.key) or "another result, of a --fresh run",
                    fix="run again",
                )


def _cannot_continue(stage: Stage, context: Context, error: Exception) -> StoreError:
    aside = context.folder.with_suffix(".damaged")
    return StoreError(
        f"{stage.name} failed when it continued what an interrupted run had written",
        expected=f"the files in {context.folder}, as that run left them",
        received=f"{type(error).__name__}: {error}",
        fix=f"if they are damaged, start the stage again: rename {context.folder} to {aside.name}; "
        f"if it fails then too, the traceback is in {context.journal.path}",
    )
