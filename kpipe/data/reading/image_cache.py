"""What files hold, cached between runs in one SQLite file.

    files   path -> status, sha256      `status` as in `kpipe.data.file_status`
    images  sha256 -> `ImageInfo` of the content
    results key -> sha256 and bytes of what was computed from many images; the last few

A file that was moved or copied is read again, but not decoded again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import sqlite3
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kpipe.data.image_info import ImageInfo
from kpipe.errors import DataError

__all__ = ["ImageCache"]

# Raised whenever the meaning of a column changes: a cache of another version is emptied.
_VERSION = 7
_RESULTS = 20
_COLUMNS = tuple(field.name for field in dataclasses.fields(ImageInfo))
# SQLite stores a bool as an int.
_KINDS = {
    field.name: int if isinstance(field.default, bool) else type(field.default)
    for field in dataclasses.fields(ImageInfo)
}
_OTHER = re.compile("no such table|no such column|has no column|Could not decode|values were")
_SHA256 = 32  # bytes
# 80 megabytes for 20,000 photos, and rarely needed: fetched separately.
_LARGE = "thumbnail"
_SMALL = tuple(name for name in _COLUMNS if name != _LARGE)
# Problems of the content alone; others depend on the name or on Pillow's limits.
_CACHED_KINDS = ("", "empty file", "truncated", "undecodable")


class ImageCache:
    """A cache of `ImageInfo`.

    Args:
        path: the SQLite file, created if missing, and rebuilt, with a warning, if damaged. Several
            processes may share it. None keeps the cache in memory until it is closed.

    Raises:
        DataError: if the file cannot be opened or written.
    """

    def __init__(self, path: str | Path | None) -> None:
        self._path = None if path is None else Path(path)
        self._lock = threading.Lock()
        try:
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(self._path, error) from error
        self._connection = self._open()

    def __enter__(self) -> ImageCache:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    def digests(self, statuses: Mapping[str, str]) -> dict[str, str]:
        """Return path -> sha256 of files whose status, path -> status, is that when added."""
        rows = self._select(
            "SELECT path, status, sha256 FROM files WHERE path IN (SELECT value FROM json_each(?))",
            list(statuses),
        )
        return {path: str(digest) for path, status, digest in rows if statuses[path] == status}

    def infos(self, digests: Iterable[str]) -> dict[str, ImageInfo]:
        """Return sha256 -> what is cached of the content, without thumbnails."""
        rows = self._select(
            f"SELECT {', '.join(_SMALL)} FROM images"
            " WHERE sha256 IN (SELECT value FROM json_each(?))",
            list(digests),
            _SMALL,
        )
        return {row[0]: ImageInfo(**dict(zip(_SMALL, row, strict=True))) for row in rows}

    def thumbnails(self, digests: Iterable[str]) -> dict[str, bytes]:
        """Return sha256 -> thumbnail."""
        rows = self._select(
            f"SELECT sha256, {_LARGE} FROM images WHERE sha256 IN (SELECT value FROM json_each(?))",
            list(digests),
            ("sha256", _LARGE),
        )
        return dict(rows)

    def info(self, digest: str) -> ImageInfo | None:
        """Return what is cached of one content, with its thumbnail."""
        rows = self._select(
            f"SELECT {', '.join(_COLUMNS)} FROM images"
            " WHERE sha256 IN (SELECT value FROM json_each(?))",
            [digest],
            _COLUMNS,
        )
        return ImageInfo(*rows[0]) if rows else None

    def result(self, key: str) -> bytes | None:
        """Return a cached result, or None."""
        rows = self._select(
            "SELECT result FROM results WHERE key IN (SELECT value FROM json_each(?))", [key]
        )
        stored = rows[0][0] if rows else b""
        result = bytes(stored[_SHA256:]) if isinstance(stored, bytes) else b""
        sound = stored == hashlib.sha256(result).digest() + result
        return result if sound else None

    def add_result(self, key: str, result: bytes) -> None:
        """Cache a result under a key that names everything the result depends on."""
        with self._lock, self._rebuilt_if_damaged(), self._connection:
            stored = hashlib.sha256(result).digest() + result
            self._connection.execute("REPLACE INTO results VALUES (?, ?)", (key, stored))
            self._connection.execute(
                "DELETE FROM results WHERE rowid NOT IN"
                " (SELECT rowid FROM results ORDER BY rowid DESC LIMIT ?)",
                (_RESULTS,),
            )

    def add(self, infos: Iterable[tuple[str, str, ImageInfo]]) -> None:
        """Cache files: path, status before it was read ("" if not trusted), and what it holds."""
        kept = [row for row in infos if row[2].sha256 and row[2].kind in _CACHED_KINDS]
        files = [(path, status, info.sha256) for path, status, info in kept if status]
        images = [tuple(getattr(info, name) for name in _COLUMNS) for _, _, info in kept]
        places = ", ".join("?" * len(_COLUMNS))
        with self._lock, self._rebuilt_if_damaged(), self._connection:
            self._connection.executemany("REPLACE INTO files VALUES (?, ?, ?)", files)
            self._connection.executemany(f"INSERT OR IGNORE INTO images VALUES ({places})", images)

    def _select(
        self, query: str, keys: list[str], columns: tuple[str, ...] = ()
    ) -> list[tuple[Any, ...]]:
        """Return rows; `columns` are the fields of `ImageInfo` in a row."""
        with self._lock, self._rebuilt_if_damaged():
            rows = self._connection.execute(query, (json.dumps(keys),)).fetchall()
            kinds = [_KINDS[name] for name in columns]
            for row in rows:
                if columns and not all(map(isinstance, row, kinds)):
                    raise sqlite3.DatabaseError("a row holds values of other types")
            return rows
        return []

    @contextlib.contextmanager
    def _rebuilt_if_damaged(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            # Operational errors concern the surroundings, except those of what the file holds.
            if isinstance(error, sqlite3.OperationalError) and not _OTHER.search(str(error)):
                raise _unusable(self._path, error) from error
            self._connection.close()
            self._connection = self._rebuild(error)

    def _open(self) -> sqlite3.Connection:
        try:
            return _connect(self._path)
        except sqlite3.OperationalError as error:
            raise _unusable(self._path, error) from error
        except sqlite3.DatabaseError as error:
            return self._rebuild(error)

    def _rebuild(self, error: sqlite3.Error) -> sqlite3.Connection:
        if self._path is None:
            raise error
        warnings.warn(
            f"the image cache {self._path} is damaged ({error}): it is rebuilt from the photos",
            stacklevel=2,
        )
        self._path.unlink(missing_ok=True)
        return _connect(self._path)


def _connect(path: Path | None) -> sqlite3.Connection:
    # Threads share the connection under a lock.
    connection = sqlite3.connect(path or ":memory:", timeout=60, check_same_thread=False)
    try:
        if _version(connection) != _VERSION:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                # Another process may have created the tables meanwhile.
                if _version(connection) != _VERSION:
                    _create_tables(connection)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _create_tables(connection: sqlite3.Connection) -> None:
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (table,) in tables:
        connection.execute(f"DROP TABLE {table}")
    columns = ", ".join("sha256 PRIMARY KEY" if name == "sha256" else name for name in _COLUMNS)
    connection.execute("CREATE TABLE files (path PRIMARY KEY, status, sha256)")
    connection.execute(f"CREATE TABLE images ({columns})")
    connection.execute("CREATE TABLE results (key PRIMARY KEY, result)")
    connection.execute(f"PRAGMA user_version = {_VERSION}")


def _unusable(path: Path | None, error: Exception) -> DataError:
    return DataError(
        f"the image cache {path} cannot be used",
        expected="an SQLite file in a writable folder",
        received=f"{type(error).__name__}: {error}",
        fix=f"make {path} writable, or rename what is there: it is built again from the photos",
    )
