"""A file lock that the system releases when the process ends, even if it is killed."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from kpipe.errors import StoreError

__all__ = ["file_lock"]

_POLL = 0.1  # seconds

if sys.platform == "win32":
    import msvcrt

    def _acquire(stream: IO[str], shared: bool) -> None:
        # Windows has no shared locks here: a shared lock excludes nobody.
        if not shared:
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _acquire(stream: IO[str], shared: bool) -> None:
        fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


@contextlib.contextmanager
def file_lock(
    path: Path, *, shared: bool = False, wait: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold a lock on a file while the block runs.

    Args:
        path: the file, created if missing; it holds the process that locked it last.
        shared: allow other shared locks, but no exclusive one.
        wait: if another process holds the lock, call this once with that process, such as
            "process 123", and wait. None raises an error instead.

    Raises:
        StoreError: another process holds the lock, or the file system has no locks.

    Example:
        >>> from pathlib import Path
        >>> from kpipe.core.lock import file_lock
        >>> with file_lock(Path("run.lock")), file_lock(Path("run.lock")):
        ...     pass
        Traceback (most recent call last):
        kpipe.errors.StoreError: another run is using .
          expected: one run at a time
          ...
    """
    with path.open("a+", encoding="utf-8") as stream:
        waits = False
        while holder := _holder(stream, path, shared):
            if wait is None:
                raise StoreError(
                    f"another run is using {path.parent}",
                    expected="one run at a time",
                    received=f"{holder} holds {path}",
                    fix="wait until it finishes, or stop it, then run again",
                )
            if not waits:
                wait(holder)
            waits = True
            time.sleep(_POLL)
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield


def _holder(stream: IO[str], path: Path, shared: bool) -> str:
    """Try to lock the file; return "" if it is locked now, else the process that holds it."""
    try:
        _acquire(stream, shared)
    except (BlockingIOError, PermissionError):
        stream.seek(0)
        return f"process {stream.read().strip() or 'unknown'}"
    except OSError as error:
        raise StoreError(
            f"{path} cannot be locked",
            expected="a file system with file locks",
            received=str(error),
            fix="keep the results on a local disk: pass another folder with --root",
        ) from error
    return ""
