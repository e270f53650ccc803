"""A file lock that the system releases when the process ends, even if it is killed."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from kpipe.errors import StoreError

__all__ = ["file_lock"]

if sys.platform == "win32":
    import msvcrt

    def _acquire(stream: IO[str]) -> None:
        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _acquire(stream: IO[str]) -> None:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file while the block runs.

    Raises:
        StoreError: another process holds the lock.
    """
    with path.open("a+", encoding="utf-8") as stream:
        try:
            _acquire(stream)
        except OSError:
            stream.seek(0)
            raise StoreError(
                f"another run is using {path.parent}",
                expected="one run at a time",
                received=f"process {stream.read().strip() or 'unknown'} holds {path}",
                fix="wait until it finishes, or stop it, then run again",
            ) from None
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield
