"""What a stage reads from outside the store, and whether that changes while it reads.

    Snapshot := digests {source: {file: sha256}}, states {file or folder: size, inode, mtime, ctime}

The digests are part of the stage's key. The states tell what was changed and changed back, such as
two folders whose names were exchanged for a while.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from kpipe.core.digests import Digests, as_text, combined, file_state, files_below
from kpipe.core.fingerprint import fingerprint
from kpipe.core.stage import Stage
from kpipe.errors import DataError

__all__ = ["Snapshot", "refuse_changes", "snapshot"]

_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The sources of a stage at one moment.

    Attributes:
        digests: source -> relative path of each file below it ("." for a source that is a file) ->
            sha256.
        states: path -> state of each file, and of each folder that holds some.
    """

    digests: dict[str, dict[str, str]]
    states: dict[str, str]

    def digest(self) -> str:
        """Return the digest of all sources, for the key."""
        return fingerprint({source: combined(files) for source, files in self.digests.items()})

    def differences(self, other: Snapshot) -> list[str]:
        """Return one phrase for each file whose content differs in another snapshot."""
        ours, theirs = self._files(), other._files()
        words = {True: "was changed", False: "was removed"}
        return [
            f"{path} {words[path in theirs] if path in ours else 'was added'}"
            for path in sorted(ours.keys() | theirs.keys())
            if ours.get(path) != theirs.get(path)
        ]

    def touched(self, other: Snapshot) -> list[str]:
        """Return one phrase for each file or folder whose state differs in another snapshot."""
        return [
            f"{path} was changed, and changed back"
            for path in sorted(self.states.keys() | other.states.keys())
            if self.states.get(path) != other.states.get(path)
        ]

    def _files(self) -> dict[str, str]:
        return {
            str(PurePosixPath(as_text(Path(source)), name)): digest
            for source, files in self.digests.items()
            for name, digest in files.items()
        }


def snapshot(stage: Stage, digests: Digests) -> Snapshot:
    """Return the current sources of a stage.

    Raises:
        DataError: one does not exist.
    """
    found: dict[str, dict[str, str]] = {}
    states: dict[str, str] = {}
    for path in stage.sources():
        if not path.exists():
            raise DataError(
                f"{stage.name} reads {path}, which does not exist",
                expected="an existing file or folder",
                received=f"nothing at {path.absolute()}",
                fix="correct the path in the pipeline file; it is relative to the current folder",
            )
        found[str(path)] = digests.files(path)
        files = list(files_below(path)) if path.is_dir() else []
        folders = {above for file in files for above in file.parents if above.is_relative_to(path)}
        states |= {as_text(each): file_state(each) for each in {path, *files, *folders}}
    return Snapshot(found, states)


@contextlib.contextmanager
def refuse_changes(stage: Stage, known: Snapshot, digests: Digests, folder: Path) -> Iterator[None]:
    """Run a stage in the body; remove its result if its sources changed since the key was computed.

    Args:
        stage: the stage.
        known: the snapshot that the key was computed from.
        digests: reads again only files whose size, inode or times differ.
        folder: where the stage writes; removed if the result does not belong to the key.

    Raises:
        DataError: the sources changed, in place of any other error of the body.
    """
    before = snapshot(stage, digests)
    _refuse(stage, known.differences(before))
    try:
        yield
    except BaseException as error:
        # What an interrupted stage wrote would be resumed under the same key.
        if changes := _changes(stage, before, digests):
            shutil.rmtree(folder)
            if isinstance(error, Exception):
                _refuse(stage, changes, error)
        raise
    if changes := _changes(stage, before, digests):
        shutil.rmtree(folder)
        _refuse(stage, changes)


def _changes(stage: Stage, before: Snapshot, digests: Digests) -> list[str]:
    try:
        now = snapshot(stage, digests)
    except DataError as error:
        return [error.what]
    return before.differences(now) or before.touched(now)


def _refuse(stage: Stage, changes: list[str], cause: Exception | None = None) -> None:
    if changes:
        more = [f"and {len(changes) - _SHOWN} more"] if len(changes) > _SHOWN else []
        raise DataError(
            f"the files that {stage.name} reads changed during the run",
            expected="files that stay as they are until the stage has finished",
            received="\n    ".join([*changes[:_SHOWN], *more]),
            fix="run again when nothing writes to them; no result of the changed files was kept",
        ) from cause
