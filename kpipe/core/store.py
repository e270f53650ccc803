"""The content-addressed store of stage results.

    <root>/<key>/           a finished result: its files and `entry.json`
    <root>/<key>.partial/   an unfinished result
    <root>/digests.sqlite   the cache of `Digests`
    <root>/shared           caches of stages, keyed by content; may be deleted at any time

    entry.json := {"about": {...}, "files": {relative path: sha256}, "digest": fingerprint(files)}

A result is renamed to its key when it is complete, so an existing key is a usable result. Every
read verifies its digests; a corrupt result is removed with a warning and rebuilt.
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

__all__ = ["Entry", "Store", "translate_disk_errors"]

_ENTRY = "entry.json"
# SQLite, and libraries that write through C, report a full disk in words, without an errno.
_FULL = ("No space left", "disk is full")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A finished result.

    Attributes:
        key: its address.
        folder: the folder of its files.
        digest: the digest of its files; the keys of the stages that read it depend on this.
        about: what it was made from, as passed to `Store.commit`.
    """

    key: str
    folder: Path
    digest: str
    about: dict[str, Any]


class Store:
    """Results by key, below one folder.

    Args:
        root: the folder; created if missing.

    Example:
        >>> from pathlib import Path
        >>> from kpipe.core.store import Store
        >>> store = Store(Path("cache"))
        >>> _ = (store.begin("key") / "a.txt").write_text("ab")
        >>> _ = store.commit("key", about={"stage": "Count"})
        >>> store.find("key").about
        {'stage': 'Count'}
        >>> store.close()
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.shared = root / "shared"
        self.shared.mkdir(parents=True, exist_ok=True)
        self.digests_file = root / "digests.sqlite"
        self.digests = Digests(self.digests_file)

    def find(self, key: str) -> Entry | None:
        """Return the result of a key, or None; remove a corrupt one with a warning."""
        folder = self.root / key
        if not folder.exists():
            return None
        corruption = self._corruption(folder)
        if corruption:
            warnings.warn(f"{folder}: {corruption}; the stage runs again", stacklevel=2)
            shutil.rmtree(folder)
            return None
        return self._read(folder)

    def has_partial(self, key: str) -> bool:
        """Whether an unfinished result of this key exists."""
        return self._partial(key).exists()

    def begin(self, key: str, *, fresh: bool = False) -> Path:
        """Return the folder to write a result to, with what an interrupted attempt wrote.

        Args:
            key: the address of the result.
            fresh: start with an empty folder.
        """
        folder = self._partial(key)
        if fresh and folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(exist_ok=True)
        return folder

    def commit(self, key: str, about: dict[str, Any]) -> Entry:
        """Publish the folder of `begin(key)` as the result of the key.

        Args:
            key: the address of the result.
            about: what it was made from, as JSON values.
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
            # Only `--fresh` replaces a result; the old one stays until the new one is complete.
            shutil.rmtree(folder)
        partial.rename(folder)
        return self._read(folder)

    def entries(self) -> list[Entry]:
        """Return every finished result, oldest first, without verifying its digests."""
        folders = [path.parent for path in self.root.glob(f"*/{_ENTRY}") if not path.parent.suffix]
        return [self._read(folder) for folder in sorted(folders, key=lambda f: f.stat().st_mtime)]

    def close(self) -> None:
        """Save the cached digests."""
        self.digests.close()

    def _partial(self, key: str) -> Path:
        return self.root / f"{key}.partial"

    def _read(self, folder: Path) -> Entry:
        entry = json.loads((folder / _ENTRY).read_text(encoding="utf-8"))
        return Entry(folder.name, folder, entry["digest"], entry["about"])

    def _corruption(self, folder: Path) -> str:
        try:
            entry = json.loads((folder / _ENTRY).read_text(encoding="utf-8"))
            expected = entry["files"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"{_ENTRY} cannot be read ({error})"
        found = {
            path.relative_to(folder).as_posix(): self.digests.file(path)
            for path in files_below(folder)
            if path.name != _ENTRY
        }
        changed = sorted(
            name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
        )
        return f"changed after it was stored: {', '.join(changed[:5])}" if changed else ""


@contextlib.contextmanager
def translate_disk_errors(root: Path) -> Iterator[None]:
    """Raise a `StoreError` for any error of the block that means a full or read-only disk.

    Args:
        root: the folder that the block writes to; it need not exist.

    Raises:
        StoreError: no space is left, or a file below the folder is not writable.
    """
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        number, name = getattr(error, "errno", None), getattr(error, "filename", None)
        if number == errno.ENOSPC or any(words in str(error) for words in _FULL):
            existing = next(path for path in (root, *root.absolute().parents) if path.exists())
            raise StoreError(
                f"the disk that holds {root.absolute()} is full",
                expected="space for the results of a stage",
                received=f"{shutil.disk_usage(existing).free / 1e6:.1f} MB free ({error})",
                fix="free some space and run again; finished stages and epochs are kept",
            ) from error
        below = isinstance(name, str) and Path(name).absolute().is_relative_to(root.absolute())
        if number in (errno.EACCES, errno.EPERM, errno.EROFS) and below:
            raise StoreError(
                f"results cannot be written to {root.absolute()}",
                expected="a writable folder",
                received=str(error),
                fix="change its permissions, or pass another folder with --root",
            ) from error
        raise
