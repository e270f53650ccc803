"""Content digests of files and folders, cached between runs.

    digest(file)   := sha256(bytes)
    digest(folder) := fingerprint({relative path: digest(file)})

A cached digest is valid while the file's size, inode, mtime and ctime are unchanged. Every write
updates the ctime, which no program can reset, so this is as reliable as reading the file again.
Files changed within the last two seconds are not cached: a second write could share the timestamp.

A cache that cannot be read or written, such as one on a read-only disk or one that another program
keeps locked, only costs time. A damaged one is rebuilt.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import sqlite3
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from kpipe.core.fingerprint import fingerprint
from kpipe.system_files import SYSTEM_FILES

__all__ = ["Digests", "as_text", "combined", "files_below"]

_UNSETTLED_NS = 2_000_000_000
_SHA256 = re.compile("[0-9a-f]{64}")
_LONGEST_WAIT = 10  # seconds, for another process that writes


def files_below(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder in sorted order, following links to folders once.

    What operating systems leave there is skipped: looking at a folder does not change it.
    """
    seen: set[tuple[int, int]] = set()

    def walk(current: Path) -> Iterator[Path]:
        status = current.stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        # Skip an unreadable folder: the code that reads the files reports it.
        if not os.access(current, os.R_OK | os.X_OK):
            return
        for child in sorted(current.iterdir()):
            if child.name in SYSTEM_FILES:
                continue
            if child.is_dir():
                yield from walk(child)
            elif child.is_file():
                yield child

    return walk(folder)


class Digests:
    """Content digests, cached in one SQLite file.

    Args:
        path: the cache; created if missing. Several processes may share it.

    Raises:
        sqlite3.OperationalError: the disk is full.

    Example:
        >>> from pathlib import Path
        >>> from kpipe.core.digests import Digests
        >>> _ = Path("a.txt").write_text("ab")
        >>> digests = Digests(Path("digests.sqlite"))
        >>> digests.file(Path("a.txt"))[:12]
        'fb8e20fc2e4c'
        >>> digests.close()
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._new: dict[str, tuple[str, str]] = {}
        self._database: sqlite3.Connection | None = None
        with self._optional():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = _connect(path)

    def known(self, path: Path) -> str:
        """Return the sha256 of a file if it is cached and the file has not changed, else ""."""
        try:
            return self._cached(_name(path), _state(path.stat()))
        except OSError:
            return ""

    def file(self, path: Path) -> str:
        """Return the hexadecimal sha256 of a file, or `"unreadable"` if access is denied."""
        name, status = _name(path), path.stat()
        state = _state(status)
        if cached := self._cached(name, state):
            return cached
        try:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except PermissionError:
            return "unreadable"
        if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _UNSETTLED_NS:
            self._new[name] = (state, digest)
        return digest

    def files(self, path: Path, below: Iterable[Path] | None = None) -> dict[str, str]:
        """Return name -> sha256 of each file below a folder, or "." -> that of a file.

        A file that vanishes meanwhile has "". `save` keeps what was computed.

        Args:
            path: the folder or file.
            below: its files, if they have been listed; for a file, the file.
        """
        if below is None:
            below = files_below(path) if path.is_dir() else [path]
        found = {}
        for file in below:
            try:
                digest = self.file(file)
            except FileNotFoundError:
                digest = ""
            found[as_text(file.relative_to(path))] = digest
        return found

    def save(self) -> None:
        """Write new digests to the file, in one transaction: other processes wait for it."""
        if not (self._database and self._new):
            return
        rows = [(name, *row) for name, row in self._new.items()]
        with self._optional(), self._database:
            self._database.executemany("REPLACE INTO digests VALUES (?, ?, ?)", rows)
            self._new.clear()

    def close(self) -> None:
        """Save the cache and close it."""
        try:
            self.save()
        finally:
            self._disconnect()

    def _cached(self, name: str, state: str) -> str:
        row = self._new.get(name)
        if row is None and self._database:
            query = "SELECT status, sha256 FROM digests WHERE path = ?"
            with self._optional():
                row = self._database.execute(query, (name,)).fetchone()
        if row is None or row[0] != state or not isinstance(row[1], str):
            return ""
        return row[1] if _SHA256.fullmatch(row[1]) else ""

    @contextlib.contextmanager
    def _optional(self) -> Iterator[None]:
        """Go on without the cache if it cannot be used, unless the disk is full."""
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            if "full" in str(error) or getattr(error, "errno", None) == errno.ENOSPC:
                raise
            if _means_damage(error):
                self._rebuild(error)
            elif "locked" in str(error):
                self._disconnect()  # each file would wait again

    def _rebuild(self, error: Exception) -> None:
        warnings.warn(f"{self._path} is damaged and is rebuilt: {error}", stacklevel=4)
        self._disconnect()
        with contextlib.suppress(OSError, sqlite3.Error):
            self._path.unlink()
            self._database = _connect(self._path)

    def _disconnect(self) -> None:
        if self._database:
            self._database.close()
        self._database = None


def _means_damage(error: Exception) -> bool:
    # Operational errors concern the surroundings, except a text that is not UTF-8.
    if isinstance(error, sqlite3.OperationalError):
        return "decode" in str(error)
    return isinstance(error, sqlite3.DatabaseError)


def combined(files: dict[str, str]) -> str:
    """Return one digest of what `Digests.files` found."""
    return files["."] if "." in files else fingerprint(files)


def _name(path: Path) -> str:
    return as_text(Path(os.path.abspath(path)))


def _state(status: os.stat_result) -> str:
    return f"{status.st_size} {status.st_ino} {status.st_mtime_ns} {status.st_ctime_ns}"


def as_text(path: Path) -> str:
    """Escape bytes that are not UTF-8, which neither SQLite nor JSON can store."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=_LONGEST_WAIT)
    try:
        database.execute(
            "CREATE TABLE IF NOT EXISTS digests (path TEXT PRIMARY KEY, status TEXT, sha256 TEXT)"
        )
        database.execute("SELECT path, status, sha256 FROM digests LIMIT 1")
    except sqlite3.Error as error:
        database.close()
        if "no such column" in str(error):
            raise sqlite3.DatabaseError("its table has other columns") from error
        raise
    return database
