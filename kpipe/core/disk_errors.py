"""Errors of the disk as messages: full, read-only, a folder that cannot be made."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from kpipe.errors import StoreError

__all__ = ["translate_disk_errors", "translate_file_errors"]

# SQLite, and libraries that write through C, report a full disk in words, without an errno.
_FULL = ("No space left", "disk is full")
_UNUSABLE = (errno.EACCES, errno.ENAMETOOLONG, errno.EPERM, errno.EROFS)
# Something of another kind is in the place of a file or folder.
_TAKEN = (errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENOTDIR)


@contextlib.contextmanager
def translate_disk_errors(root: Path, option: str = "--root") -> Iterator[None]:
    """Raise a `StoreError` for any error of the block that means a full or unusable disk.

    Args:
        root: the folder that the block writes to; it need not exist.
        option: the option of the command that names another folder.

    Raises:
        StoreError: no space is left, or the folder or a file below it cannot be made or written.

    Example:
        >>> from pathlib import Path
        >>> from kpipe.core.disk_errors import translate_disk_errors
        >>> with translate_disk_errors(Path("photos/red/00.png/out")):
        ...     Path("photos/red/00.png/out").mkdir()
        Traceback (most recent call last):
        kpipe.errors.StoreError: results cannot be written to ...
          expected: a folder that can be made and written
          ...
    """
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        number, name = getattr(error, "errno", None), getattr(error, "filename", None)
        folder = Path(os.path.abspath(root))
        if number == errno.ENOSPC or any(words in str(error) for words in _FULL):
            raise StoreError(
                f"the disk that holds {folder} is full",
                expected="space for the results of a stage",
                received=f"{_free(root) / 1e6:.1f} MB free ({error})",
                fix="free some space and run again; finished stages and epochs are kept",
            ) from error
        if not (isinstance(name, str | os.PathLike) and _touches(folder, name)):
            raise
        name = getattr(error, "filename2", None) or name  # the target of a rename
        what = f"results cannot be written to {folder}"
        if number in _TAKEN or (number == errno.ENOENT and os.path.islink(name)):
            obstacle = _obstacle(Path(name))
            raise StoreError(
                what,
                expected=f"nothing at {obstacle}, or what kpipe made there",
                received=str(error),
                fix=f"rename or remove {obstacle}, or pass another path with {option}",
            ) from error
        # A folder that cannot be made, such as one in /proc, or that somebody removed.
        vanished = number == errno.ENOENT and not os.path.isdir(os.path.dirname(name) or ".")
        if number in _UNUSABLE or vanished:
            raise StoreError(
                what,
                expected="a folder that can be made and written",
                received=str(error),
                fix=f"change its permissions, or pass another path with {option}"
                if not vanished
                else f"run again if another program removed it; or pass another path with {option}",
            ) from error
        raise


@contextlib.contextmanager
def translate_file_errors(file: Path, option: str) -> Iterator[None]:
    """Raise a `StoreError` if the one file that the block writes cannot be written.

    Args:
        file: the file; missing folders are made by the block.
        option: the option of the command that names another file.
    """
    with translate_disk_errors(file.parent, option):
        try:
            yield
        except FileNotFoundError as error:
            # A file in a folder that exists but takes no files, such as /proc.
            name = os.path.abspath(error.filename or "")
            if os.path.dirname(name) != os.path.dirname(os.path.abspath(file)):
                raise
            raise StoreError(
                f"{file} cannot be written",
                expected="a file in a folder that can be written",
                received=str(error),
                fix=f"pass another path with {option}",
            ) from error


def _free(root: Path) -> int:
    existing = next(path for path in (root, *root.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def _obstacle(path: Path) -> Path:
    """Return the first part of the path that is no folder, or the path."""
    parts = [*reversed(path.parents), path]
    return next((part for part in parts if os.path.lexists(part) and not part.is_dir()), path)


def _touches(folder: Path, name: str | os.PathLike[str]) -> bool:
    """Whether a path is below the folder, or is the folder or one that holds it."""
    path = Path(os.path.abspath(name))
    return path.is_relative_to(folder) or folder.is_relative_to(path)
