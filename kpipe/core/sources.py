"""What a stage reads from outside the store, and whether that changes while it reads.

    Snapshot := digests {source: {file: sha256}}
                states  {file: (inode, mtime, size), folder: (inode, mtime, ctime)}

The digests are part of the stage's key. The states tell what was changed and changed back: content,
and folders whose names were exchanged for a while. A rename changes the ctime of a folder but not
its mtime; a file that a file browser leaves in it changes both.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from kpipe.core.digests import Digests, as_text, combined, files_below
from kpipe.core.fingerprint import fingerprint
from kpipe.core.journal import Journal
from kpipe.core.stage import Stage
from kpipe.core.store import discard_partial
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
        folders: the paths that are folders.
    """

    digests: dict[str, dict[str, str]]
    states: dict[str, tuple[int, int, int]]
    folders: frozenset[str]

    def digest(self) -> str:
        """Return the digest of all sources, for the key."""
        return fingerprint({source: combined(files) for source, files in self.digests.items()})

    @property
    def is_one_file(self) -> bool:
        """Whether the only source is a single file."""
        return [list(files) for files in self.digests.values()] == [["."]]

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
        """Return one phrase for each file or folder that was changed, and changed back."""
        return [
            f"{path} was changed, and changed back"
            for path in sorted(self.states.keys() & other.states.keys())
            if self._differs(path, other.states[path])
        ]

    def _differs(self, path: str, now: tuple[int, int, int]) -> bool:
        before = self.states[path]
        if path not in self.folders:
            return before != now
        return before[0] != now[0] or (before[1] == now[1] and before[2] != now[2])

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
    files: set[Path] = set()
    folders: set[Path] = set()
    sources = stage.sources()
    for path in sources:
        if not path.exists():
            raise DataError(
                f"{stage.name} reads {path}, which does not exist",
                expected="an existing file or folder",
                received=f"nothing at {path.absolute()}",
                fix="correct the path in the pipeline file; it is relative to the current folder",
            )
        is_folder = path.is_dir()
        below = list(files_below(path)) if is_folder else [path]
        found[str(path)] = digests.files(path, below)
        files.update(below)
        if is_folder:
            folders |= {path} | _between(path, below)
        elif len(sources) > 1:
            # Only with another file can one be exchanged.
            folders.add(path.parent)
    digests.save()
    # Not the ctime of files: new links and rights change it.
    states = {as_text(path): _state(path, "st_size") for path in files}
    states |= {as_text(path): _state(path, "st_ctime_ns") for path in folders}
    return Snapshot(found, states, frozenset(map(as_text, folders)))


def _between(top: Path, files: Iterable[Path]) -> set[Path]:
    """Return the folders below `top` that hold the files, directly or not."""
    found: set[Path] = set()
    for folder in {file.parent for file in files}:
        while folder != top and folder not in found:
            found.add(folder)
            folder = folder.parent
    return found


def _state(path: Path, third: str) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0, 0
    return status.st_ino, status.st_mtime_ns, getattr(status, third)


@contextlib.contextmanager
def refuse_changes(
    stage: Stage, known: Snapshot, digests: Digests, folder: Path, journal: Journal
) -> Iterator[None]:
    """Run a stage in the body; remove its result if its sources changed since the key was computed.

    Args:
        stage: the stage.
        known: the snapshot that the key was computed from.
        digests: reads again only files whose size, inode or times differ.
        folder: where the stage writes; removed if the result does not belong to the key.
        journal: the journal of the stage.

    Raises:
        DataError: the sources changed, in place of any other error of the body.
    """
    before = snapshot(stage, digests)
    _refuse(stage, known.differences(before))
    try:
        yield
    except BaseException as error:
        # What an interrupted stage wrote would be resumed under the same key.
        if changes := _changes(stage, before, digests, journal):
            discard_partial(folder)
            if isinstance(error, Exception):
                _refuse(stage, changes, error)
            what = f"the files that {stage.name} reads changed; what it wrote is discarded"
            warnings.warn(f"{what}: {_listed(changes)}", stacklevel=2)
        raise
    if changes := _changes(stage, before, digests, journal):
        discard_partial(folder)
        _refuse(stage, changes)


def _changes(stage: Stage, before: Snapshot, digests: Digests, journal: Journal) -> list[str]:
    """Return why what the stage wrote may be that of other files."""
    try:
        now = snapshot(stage, digests)
    except DataError as error:
        return [error.what]
    changed, touched = before.differences(now), before.touched(now)
    if touched and not changed and before.is_one_file:
        kept = f"{touched[0]}, or only touched, while {stage.name} ran: the result is kept"
        with contextlib.suppress(OSError):  # the disk is full
            journal.record("note", text=kept)
        return []
    return changed or touched


def _refuse(stage: Stage, changes: list[str], cause: Exception | None = None) -> None:
    if changes:
        raise DataError(
            f"the files that {stage.name} reads changed during the run",
            expected="files that stay as they are until the stage has finished",
            received=_listed(changes),
            fix="run again when nothing writes to them; no result of the changed files was kept",
        ) from cause


def _listed(changes: list[str]) -> str:
    more = [f"and {len(changes) - _SHOWN} more"] if len(changes) > _SHOWN else []
    return "\n    ".join([*changes[:_SHOWN], *more])
