"""Content digests of files and folders, remembered between runs.

    digest(file)   := sha256(bytes)
    digest(folder) := fingerprint({relative path: digest(file)})

A digest is reused while the file's size, inode, mtime and ctime stand as they were. Any write
changes the ctime, which no program can set back, so this is as good as reading the file again. What
was changed within the last two seconds is not remembered: a second write might share its timestamp.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from kpipe.core.fingerprint import fingerprint

__all__ = ["Digests", "files_below"]

_UNSETTLED_NS = 2_000_000_000


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below a folder in sorted order; links to folders are followed, loops are not."""
    seen: set[tuple[int, int]] = set()

    def walk(current: Path) -> Iterator[Path]:
        status = current.stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        # An unreadable folder is no part of the content; whoever reads the files reports it.
        if not os.access(current, os.R_OK | os.X_OK):
            return
        for child in sorted(current.iterdir()):
            if child.is_dir():
                yield from walk(child)
            elif child.is_file():
                yield child

    return walk(folder)


class Digests:
    """Digests with a memory in one SQLite file.

    Args:
        path: the memory; made when missing. Several processes may share it.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._memory = _opened(path)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            warnings.warn(f"{path}: {error}; it is made again", stacklevel=2)
            path.unlink()
            self._memory = _opened(path)

    def file(self, path: Path) -> str:
        """The sha256 of a file in hexadecimal digits; `"unreadable"` where access is denied."""
        name = _text(path.absolute())
        status = path.stat()
        mark = f"{status.st_size} {status.st_ino} {status.st_mtime_ns} {status.st_ctime_ns}"
        row = self._memory.execute(
            "SELECT sha256 FROM digests WHERE path = ? AND status = ?", (name, mark)
        ).fetchone()
        if row:
            return str(row[0])
        try:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except PermissionError:
            return "unreadable"
        if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _UNSETTLED_NS:
            self._memory.execute("REPLACE INTO digests VALUES (?, ?, ?)", (name, mark, digest))
        return digest

    def path(self, path: Path) -> str:
        """The digest of a file, or of a folder with everything below it."""
        if path.is_dir():
            digest = fingerprint(
                {_text(file.relative_to(path)): self.file(file) for file in files_below(path)}
            )
        else:
            digest = self.file(path)
        self._memory.commit()
        return digest

    def close(self) -> None:
        """Keep what was learnt."""
        with contextlib.closing(self._memory):
            self._memory.commit()


def _text(path: Path) -> str:
    """A name with bytes that are not UTF-8 written out: neither SQLite nor JSON hold them."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def _opened(path: Path) -> sqlite3.Connection:
    memory = sqlite3.connect(path, timeout=60)
    try:
        memory.execute(
            "CREATE TABLE IF NOT EXISTS digests (path TEXT PRIMARY KEY, status TEXT, sha256 TEXT)"
        )
    except sqlite3.Error:
        memory.close()
        raise
    return memory
