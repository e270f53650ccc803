"""Atomic writes: after a kill or on a full disk, a file is either the old one or the new one.

write := temporary file `.NAME` beside it -> fsync -> rename -> fsync of the folder

A killed write leaves its temporary file behind; the next write of the same file replaces it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

__all__ = ["flush", "replacing", "write_text"]


@contextlib.contextmanager
def replacing(path: Path, *, unique: bool = False) -> Iterator[Path]:
    """Yield a temporary path with the same suffix, and rename it to `path` when the block ends.

    Args:
        path: the file to create or replace. Missing folders are created.
        unique: use a random temporary name, for a file that several processes may write at once.

    Raises:
        OSError: the disk is full or not writable. An earlier file is left untouched.

    Example:
        >>> from pathlib import Path
        >>> from kpipe.atomic import replacing
        >>> with replacing(Path("results/counts.bin")) as temporary:
        ...     _ = temporary.write_bytes(bytes([1, 2, 3]))
        >>> [path.name for path in Path("results").iterdir()]
        ['counts.bin']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    token = f"{secrets.token_hex(4)}-" if unique else ""
    temporary = path.with_name(f".{token}{path.name}")
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # Windows cannot flush a folder.
        flush(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically.

    Example:
        >>> from pathlib import Path
        >>> from kpipe.atomic import write_text
        >>> write_text(Path("labels.txt"), "cat, dog")
        >>> Path("labels.txt").read_text()
        'cat, dog'
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def flush(path: Path) -> None:
    """Flush a closed file, or the entries of a folder, to the disk."""
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
