"""The content-addressed store of stage results.

    <root>/<key>/           a finished result: its files and `entry.json`; key = fingerprint(about)
    <root>/<key>.partial/   an unfinished result; with the file `.discarded`, none to continue
    <root>/<key>.damaged/   a result that was set aside; may be deleted at any time
    <root>/locks/<key>      locked by the run that makes the result
    <root>/locks/store      shared by runs; locked by what removes results
    <root>/digests.sqlite   the cache of `Digests`
    <root>/shared           caches of stages, keyed by content; may be deleted at any time

    entry.json := {"about": {...}, "files": {relative path: sha256},
                   "digest": fingerprint(files without measured.json)}

A result is renamed to its key when it is complete, so an existing key is a usable result. Every
read verifies its digests; a damaged result is set aside with a warning and made again.

What a stage measures on the machine, such as times, differs in each run. A stage writes it to
`measured.json`, on which the keys of later stages do not depend.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from kpipe.atomic import flush
from kpipe.core.digests import Digests, files_below
from kpipe.core.fingerprint import fingerprint
from kpipe.core.lock import file_lock
from kpipe.errors import KpipeError, StoreError

__all__ = ["ENTRY", "MEASURED", "Entry", "Store", "discard", "discard_partial", "remove"]

ENTRY = "entry.json"
MEASURED = "measured.json"
_DISCARDED = ".discarded"
# SQLite opens no file whose path has more than 511 bytes; stages keep caches in `shared`.
_LONGEST_PATH = 450


@dataclasses.dataclass(frozen=True)
class Entry:
    """A finished result.

    Attributes:
        key: its address.
        folder: the folder of its files.
        digest: the digest of its files without `measured.json`; the keys of the stages that read
            it depend on this.
        about: what it was made from, as passed to `Store.commit`.
    """

    key: str
    folder: Path
    digest: str
    about: dict[str, Any]

    def folder_of(self, kind: str) -> Path:
        """Return the subfolder named after a kind, if there is one, else the folder."""
        part = self.folder / kind
        return part if part.is_dir() else self.folder

    @property
    def committed_ns(self) -> int:
        """When it was stored, in nanoseconds of `time.time_ns`."""
        return (self.folder / ENTRY).stat().st_mtime_ns


class Store:
    """Results by key, below one folder.

    Args:
        root: the folder.
        create: create the folder. Otherwise it may be missing or read-only; the methods that
            write fail then.

    Raises:
        StoreError: the path of the folder is too long.

    Example:
        >>> from pathlib import Path
        >>> from kpipe.core.fingerprint import fingerprint
        >>> from kpipe.core.store import Store
        >>> store, about = Store(Path("cache")), {"stage": "Count"}
        >>> key = fingerprint(about)
        >>> with store.lock(key, wait=print):
        ...     _ = (store.begin(key) / "a.txt").write_text("ab")
        ...     _ = store.commit(key, about)
        >>> store.find(key).about
        {'stage': 'Count'}
        >>> store.close()
    """

    def __init__(self, root: Path, *, create: bool = True) -> None:
        self.root = root
        self.shared = root / "shared"
        if create:
            _refuse_long_path(root)
            self.shared.mkdir(parents=True, exist_ok=True)
            (root / "locks").mkdir(exist_ok=True)
        self.digests_file = root / "digests.sqlite"
        self.digests = Digests(self.digests_file)

    def find(self, key: str) -> Entry | None:
        """Return the result of a key, or None if there is none or it is damaged."""
        found = self._verify(key)
        return found if isinstance(found, Entry) else None

    def damage(self, key: str) -> str:
        """Return what is wrong with the result of a key; empty if it is sound or missing."""
        found = self._verify(key)
        return found if isinstance(found, str) else ""

    def has_partial(self, key: str) -> bool:
        """Whether an unfinished result of this key exists."""
        folder = self._partial(key)
        # `Path.is_dir` fails for a path that is too long.
        return os.path.isdir(folder) and not os.path.lexists(folder / _DISCARDED)

    def lock(self, key: str, wait: Callable[[str], None]) -> AbstractContextManager[None]:
        """Keep other runs from making the same result while the block runs.

        Args:
            key: the address of the result.
            wait: called with the process that is making the result, if there is one.
        """
        return file_lock(self.root / "locks" / key, wait=wait)

    def in_use(self, wait: Callable[[str], None]) -> AbstractContextManager[None]:
        """Keep results from being removed while the block runs; `wait` is that of `lock`."""
        return file_lock(self.root / "locks" / "store", shared=True, wait=wait)

    def begin(self, key: str, *, fresh: bool = False) -> Path:
        """Return the folder to write a result to, with what an interrupted attempt wrote.

        A damaged result of the key is set aside, with a warning. Hold the lock of the key.

        Args:
            key: the address of the result.
            fresh: start with an empty folder.
        """
        if damage := self.damage(key):
            aside = _move_aside(self.root / key, ".damaged")
            warnings.warn(
                f"{self.root / key}: {damage}; it is now {aside.name}, and the stage runs again",
                stacklevel=2,
            )
        folder = self._partial(key)
        if os.path.lexists(folder) and (fresh or not self.has_partial(key)):
            remove(folder)
        folder.mkdir(exist_ok=True)
        return folder

    def commit(self, key: str, about: dict[str, Any]) -> Entry:
        """Publish the folder of `begin(key)` as the result of the key.

        Args:
            key: the address of the result: the fingerprint of `about`.
            about: what it was made from, as JSON values.
        """
        partial, folder = self._partial(key), self.root / key
        files = self._files(partial)
        digest = _digest(files)
        entry = {"about": about, "files": files, "digest": digest}
        text = json.dumps(entry, ensure_ascii=False, indent=1)
        (partial / ENTRY).write_text(text, encoding="utf-8")
        flush(partial / ENTRY)
        if os.path.lexists(folder):
            # Only `--fresh` replaces a result; another run may have files of the old one open.
            old = _move_aside(folder, ".replaced")
            partial.rename(folder)
            remove(old)
        else:
            partial.rename(folder)
        return Entry(key, folder, digest, about)

    def entries(self) -> list[Entry]:
        """Return every finished result, oldest first, without verifying its files."""
        found = []
        # `Path.glob` fails for a name that is too long.
        for file in self.root.glob(f"*/{ENTRY}") if os.path.isdir(self.root) else ():
            with contextlib.suppress(_DamagedError, OSError):
                entry = _read(file.parent)[0]
                found.append((entry.committed_ns, entry))
        return [entry for _, entry in sorted(found, key=lambda row: row[0])]

    def close(self) -> None:
        """Save the cached digests."""
        self.digests.close()

    def _partial(self, key: str) -> Path:
        return self.root / f"{key}.partial"

    def _verify(self, key: str) -> Entry | str | None:
        """Return a sound result, what is wrong with it, or None if there is none."""
        folder = self.root / key
        if not os.path.lexists(folder):
            return None
        try:
            entry, expected = _read(folder)
            found = self._files(folder)
        except (_DamagedError, OSError) as error:
            return str(error)
        names = sorted(expected.keys() | found.keys())
        changed = [name for name in names if expected.get(name) != found.get(name)]
        return f"changed after it was stored: {', '.join(changed[:5])}" if changed else entry

    def _files(self, folder: Path) -> dict[str, str]:
        """Return relative path -> sha256 of the files of a result."""
        files = {
            path.relative_to(folder).as_posix(): self.digests.file(path)
            for path in files_below(folder)
            if path.name != ENTRY
        }
        self.digests.save()
        return files


def _refuse_long_path(root: Path) -> None:
    length = len(os.fsencode(os.path.abspath(root)))
    if length > _LONGEST_PATH:
        raise StoreError(
            f"the path of the results is too long: {str(root.absolute())[:60]}...",
            expected=f"at most {_LONGEST_PATH} bytes",
            received=f"{length} bytes",
            fix="pass a shorter path with --root",
        )


def discard(path: Path) -> None:
    """Remove a result or a run; after an interruption, no half of it is left under its name."""
    if path.suffix not in (".damaged", ".replaced", ".removed"):
        path = _move_aside(path, ".removed")
    remove(path)


def discard_partial(folder: Path) -> None:
    """Remove an unfinished result, or mark it, so that no run continues it.

    Raises:
        StoreError: it can be neither removed nor marked.
    """
    try:
        # Windows renames no folder with open files, such as the images that a traceback holds.
        with contextlib.suppress(OSError):
            discard(folder)
        if folder.is_dir():
            (folder / _DISCARDED).touch()
    except OSError as error:
        raise StoreError(
            f"{folder} holds results of files that changed, and cannot be discarded",
            received=str(error),
            fix="remove this folder before the next run, which would continue it",
        ) from error


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with everything below it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


class _DamagedError(Exception):
    """A result that cannot be read, and why."""


def _read(folder: Path) -> tuple[Entry, dict[str, str]]:
    """Return a result and the digests of its files, as they were stored."""
    if not (folder / ENTRY).is_file():
        missing = f"{ENTRY} is missing" if folder.is_dir() else "it is not a folder"
        raise _DamagedError(missing)
    try:
        content = json.loads((folder / ENTRY).read_text(encoding="utf-8"))
        about, files, digest = dict(content["about"]), dict(content["files"]), content["digest"]
        matches = (fingerprint(about), _digest(files)) == (folder.name, digest)
    except (OSError, ValueError, LookupError, TypeError, RecursionError, KpipeError) as error:
        raise _DamagedError(f"{ENTRY} cannot be read ({type(error).__name__}: {error})") from error
    if not matches:
        raise _DamagedError(f"{ENTRY} was changed after it was stored")
    return Entry(folder.name, folder, digest, about), files


def _digest(files: dict[str, str]) -> str:
    return fingerprint({name: sha256 for name, sha256 in files.items() if name != MEASURED})


def _move_aside(path: Path, suffix: str) -> Path:
    """Rename a result, in place of one that was moved aside before."""
    aside = path.with_name(path.name.removesuffix(".partial") + suffix)
    if os.path.lexists(aside):
        remove(aside)
    return path.rename(aside)
