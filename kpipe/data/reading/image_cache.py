"""What files were found to hold, remembered between runs in one SQLite file.

    files   path -> status, sha256
    facts   sha256 -> what the content is, of photos and of what is none
    answers question -> what was worked out from many facts; the last few

A digest is reused while the file's size, inode, mtime and ctime stand as they were. Any write
changes the ctime, which no program can set back. What was changed within the last two seconds is
not remembered: a second write might share its timestamp. A file that was moved or copied is read
again, but not decoded again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sqlite3
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kpipe.data.image_info import ImageInfo
from kpipe.errors import DataError

__all__ = ["ImageCache", "file_status"]

# Another number, and what was remembered is forgotten: raised with the meaning of a fact.
_VERSION = 4
_ANSWERS = 20
_UNSETTLED_NS = 2_000_000_000
_COLUMNS = tuple(field.name for field in dataclasses.fields(ImageInfo))
# Of 20,000 photos 80 megabytes, which few questions need: fetched apart.
_LARGE = "thumbnail"
_SMALL = tuple(name for name in _COLUMNS if name != _LARGE)
# Of the content alone; others depend on the name, or on limits of Pillow, and are found at once.
_KEPT_KINDS = ("", "empty file", "truncated", "undecodable")


class ImageCache:
    """Facts with a memory.

    Args:
        path: the SQLite file; made when missing, and made again, with a warning, when damaged.
            Several processes may share it. None: a memory that ends with its closing.

    Raises:
        DataError: the file cannot be opened or written.
    """

    def __init__(self, path: str | Path | None) -> None:
        self._path = None if path is None else Path(path)
        self._lock = threading.Lock()
        try:
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(self._path, error) from error
        self._connection = self._opened()

    def __enter__(self) -> ImageCache:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    def digests(self, statuses: Mapping[str, str]) -> dict[str, str]:
        """The sha256 of those files that stand as they were.

        Args:
            statuses: path, absolute: `file_status(path)`.
        """
        rows = self._asked(
            "SELECT path, status, sha256 FROM files WHERE path IN (SELECT value FROM json_each(?))",
            [path for path, status in statuses.items() if status],
        )
        return {path: digest for path, status, digest in rows if statuses[path] == status}

    def facts(self, digests: Iterable[str]) -> dict[str, ImageInfo]:
        """What is known of some contents but for their thumbnails, by sha256."""
        rows = self._asked(
            f"SELECT {', '.join(_SMALL)} FROM facts"
            " WHERE sha256 IN (SELECT value FROM json_each(?))",
            list(digests),
        )
        return {row[0]: ImageInfo(**dict(zip(_SMALL, row, strict=True))) for row in rows}

    def thumbnails(self, digests: Iterable[str]) -> dict[str, bytes]:
        """The thumbnails of some contents, by sha256."""
        rows = self._asked(
            f"SELECT sha256, {_LARGE} FROM facts WHERE sha256 IN (SELECT value FROM json_each(?))",
            list(digests),
        )
        return dict(rows)

    def content(self, digest: str) -> ImageInfo | None:
        """What is known of one content, all of it."""
        rows = self._asked(
            f"SELECT {', '.join(_COLUMNS)} FROM facts"
            " WHERE sha256 IN (SELECT value FROM json_each(?))",
            [digest],
        )
        return ImageInfo(*rows[0]) if rows else None

    def answer(self, question: str) -> bytes | None:
        """What was worked out before, if it was."""
        rows = self._asked(
            "SELECT answer FROM answers WHERE question IN (SELECT value FROM json_each(?))",
            [question],
        )
        return rows[0][0] if rows else None

    def keep(self, question: str, answer: bytes) -> None:
        """Remember what was worked out.

        Args:
            question: says all that the answer depends on.
            answer: at most one of each question.
        """
        with self._lock, self._mended(), self._connection:
            self._connection.execute("REPLACE INTO answers VALUES (?, ?)", (question, answer))
            self._connection.execute(
                "DELETE FROM answers WHERE rowid NOT IN"
                " (SELECT rowid FROM answers ORDER BY rowid DESC LIMIT ?)",
                (_ANSWERS,),
            )

    def remember(self, found: Iterable[tuple[str, str, ImageInfo]]) -> None:
        """Keep what was found.

        Args:
            found: path, status before the file was read, and facts.
        """
        kept = [row for row in found if row[2].sha256 and row[2].kind in _KEPT_KINDS]
        files = [(path, status, facts.sha256) for path, status, facts in kept if status]
        facts = [tuple(getattr(facts, name) for name in _COLUMNS) for _, _, facts in kept]
        places = ", ".join("?" * len(_COLUMNS))
        with self._lock, self._mended(), self._connection:
            self._connection.executemany("REPLACE INTO files VALUES (?, ?, ?)", files)
            self._connection.executemany(f"INSERT OR IGNORE INTO facts VALUES ({places})", facts)

    def _asked(self, question: str, keys: list[str]) -> list[tuple[Any, ...]]:
        with self._lock, self._mended():
            return self._connection.execute(question, (json.dumps(keys),)).fetchall()
        return []

    @contextlib.contextmanager
    def _mended(self) -> Iterator[None]:
        """A damaged file is told, and made again; what stood in it is found again."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise _unusable(self._path, error) from error
        except sqlite3.DatabaseError as error:
            self._connection.close()
            self._connection = self._made_again(error)

    def _opened(self) -> sqlite3.Connection:
        try:
            return _connected(self._path)
        except sqlite3.OperationalError as error:
            raise _unusable(self._path, error) from error
        except sqlite3.DatabaseError as error:
            return self._made_again(error)

    def _made_again(self, error: sqlite3.Error) -> sqlite3.Connection:
        if self._path is None:
            raise error
        warnings.warn(f"{self._path}: {error}; it is made again", stacklevel=2)
        self._path.unlink(missing_ok=True)
        return _connected(self._path)


def file_status(path: str) -> str:
    """A mark that any write to a file changes; "" where there is none to rely on."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return ""
    if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) <= _UNSETTLED_NS:
        return ""
    return f"{found.st_size} {found.st_ino} {found.st_mtime_ns} {found.st_ctime_ns}"


def _connected(path: Path | None) -> sqlite3.Connection:
    # Threads share it under a lock.
    connection = sqlite3.connect(path or ":memory:", timeout=60, check_same_thread=False)
    try:
        if _version(connection) != _VERSION:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                # Another process may have made it meanwhile.
                if _version(connection) != _VERSION:
                    _begin(connection)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _begin(connection: sqlite3.Connection) -> None:
    columns = ", ".join("sha256 PRIMARY KEY" if name == "sha256" else name for name in _COLUMNS)
    tables = {
        "files": "path PRIMARY KEY, status, sha256",
        "facts": columns,
        "answers": "question PRIMARY KEY, answer",
    }
    for table, described in tables.items():
        connection.execute(f"DROP TABLE IF EXISTS {table}")
        connection.execute(f"CREATE TABLE {table} ({described})")
    connection.execute(f"PRAGMA user_version = {_VERSION}")


def _unusable(path: Path | None, error: Exception) -> DataError:
    return DataError(
        f"the memory {path} cannot be used",
        expected="an SQLite file in a folder that may be written",
        received=f"{type(error).__name__}: {error}",
        fix="name another file as memory, or none",
    )
