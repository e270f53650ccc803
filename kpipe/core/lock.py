"""A lock that ends with the process that holds it, even when that is killed."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from kpipe.errors import StoreError

__all__ = ["locked"]

if sys.platform == "win32":
    import msvcrt

    def _acquire(stream: IO[str]) -> None:
        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _acquire(stream: IO[str]) -> None:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file while the block runs.

    Raises:
        StoreError: another process holds it.
    """
    with path.open("a+", encoding="utf-8") as stream:
        try:
            _acquire(stream)
        except OSError:
            stream.seek(0)
            raise StoreError(
                f"another run is at work in {path.parent}",
                expected="one run at a time",
                received=f"process {stream.read().strip() or 'unknown'} holds {path}",
                fix="wait for it, or end it, and run again",
            ) from None
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield
