"""The content-addressed store of stage results.

    <root>/<key>/           a finished result: its files and `entry.json`
    <root>/<key>.partial/   a result being made, or cut off while being made
    <root>/digests.sqlite   what `Digests` remembers
    <root>/shared           memories of stages, keyed by content; may be deleted at any time

    entry.json := {"about": {...}, "files": {relative path: sha256}, "digest": fingerprint(files)}

A result is written aside and renamed when it is whole, so that a key that exists is a result that
can be used. It is checked against its digests whenever it is read; one that does not agree is
removed with a warning, and made again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import shutil
import sqlite3
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kpipe.atomic import flush
from kpipe.core.digests import Digests, files_below
from kpipe.core.fingerprint import fingerprint
from kpipe.errors import StoreError

__all__ = ["Entry", "Store", "disk_watched"]

_ENTRY = "entry.json"
# Libraries that write through C, and SQLite, say it in words instead of an error number.
_FULL = ("No space left", "disk is full")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A finished result.

    Attributes:
        key: its address.
        folder: where its files are.
        digest: the digest of its files; the key of a stage that reads it depends on this.
        about: what it was made from, as given to `Store.commit`.
    """

    key: str
    folder: Path
    digest: str
    about: dict[str, Any]


class Store:
    """Results under one folder, by key.

    Args:
        root: the folder; made when missing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.shared = root / "shared"
        self.shared.mkdir(parents=True, exist_ok=True)
        self.digests = Digests(root / "digests.sqlite")

    def find(self, key: str) -> Entry | None:
        """The result under a key, checked against its digests; None where there is none.

        A result that does not agree with its digests is removed with a warning.
        """
        folder = self.root / key
        if not folder.exists():
            return None
        fault = self._fault(folder)
        if fault:
            warnings.warn(f"{folder}: {fault}; it is made again", stacklevel=2)
            shutil.rmtree(folder)
            return None
        return self._read(folder)

    def has_partial(self, key: str) -> bool:
        """Whether a result under this key was begun and not finished."""
        return self._partial(key).exists()

    def begin(self, key: str, *, fresh: bool = False) -> Path:
        """The folder to write a result into; what a cut-off attempt wrote is still there.

        Args:
            key: the address of the result.
            fresh: start from an empty folder.
        """
        folder = self._partial(key)
        if fresh and folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(exist_ok=True)
        return folder

    def commit(self, key: str, about: dict[str, Any]) -> Entry:
        """Make what was written under `begin(key)` the result of the key.

        Args:
            key: the address of the result.
            about: JSON values saying what it was made from.
        """
        partial, folder = self._partial(key), self.root / key
        files = {
            path.relative_to(partial).as_posix(): self.digests.file(path)
            for path in files_below(partial)
            if path.name != _ENTRY
        }
        entry = {"about": about, "files": files, "digest": fingerprint(files)}
        text = json.dumps(entry, ensure_ascii=False, indent=1)
        (partial / _ENTRY).write_text(text, encoding="utf-8")
        flush(partial / _ENTRY)
        if folder.exists():
            # Only `--fresh` makes a result again: the old one stands until the new one is whole.
            shutil.rmtree(folder)
        partial.rename(folder)
        return self._read(folder)

    def entries(self) -> list[Entry]:
        """Every finished result, oldest first, unchecked: for showing what is there."""
        folders = [path.parent for path in self.root.glob(f"*/{_ENTRY}") if not path.parent.suffix]
        return [self._read(folder) for folder in sorted(folders, key=lambda f: f.stat().st_mtime)]

    def close(self) -> None:
        """Keep what the digests learnt."""
        self.digests.close()

    def _partial(self, key: str) -> Path:
        return self.root / f"{key}.partial"

    def _read(self, folder: Path) -> Entry:
        entry = json.loads((folder / _ENTRY).read_text(encoding="utf-8"))
        return Entry(folder.name, folder, entry["digest"], entry["about"])

    def _fault(self, folder: Path) -> str:
        try:
            entry = json.loads((folder / _ENTRY).read_text(encoding="utf-8"))
            expected = entry["files"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"its {_ENTRY} cannot be read ({error})"
        found = {
            path.relative_to(folder).as_posix(): self.digests.file(path)
            for path in files_below(folder)
            if path.name != _ENTRY
        }
        changed = sorted(
            name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
        )
        return f"changed since it was made: {', '.join(changed[:5])}" if changed else ""


@contextlib.contextmanager
def disk_watched(root: Path) -> Iterator[None]:
    """Say in kpipe's words that the disk is full or may not be written, whoever finds out.

    Args:
        root: the folder that is written to; it need not exist.

    Raises:
        StoreError: the block ran out of space, or was denied a file below the folder.
    """
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        number, name = getattr(error, "errno", None), getattr(error, "filename", None)
        if number == errno.ENOSPC or any(words in str(error) for words in _FULL):
            there = next(path for path in (root, *root.absolute().parents) if path.exists())
            raise StoreError(
                f"the disk that holds {root.absolute()} is full",
                expected="space for the results of a stage",
                received=f"{shutil.disk_usage(there).free / 1e6:.1f} MB free ({error})",
                fix="free some space and run again: finished stages and epochs are kept",
            ) from error
        below = isinstance(name, str) and Path(name).absolute().is_relative_to(root.absolute())
        if number in (errno.EACCES, errno.EPERM, errno.EROFS) and below:
            raise StoreError(
                f"results cannot be written to {root.absolute()}",
                expected="a folder that may be written",
                received=str(error),
                fix="change its permissions, or name another folder with --root",
            ) from error
        raise
