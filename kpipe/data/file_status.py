"""Whether a file has changed, without reading it.

    status := "size inode mtime ctime"

Any write changes the ctime, which no program can set back. So a file whose status is the one it had
when it was hashed still has that content, unless it was hashed within two seconds of a change:
a second write might get the same timestamp.
"""

from __future__ import annotations

import hashlib
import os
import time
from io import BufferedReader

__all__ = ["current_status", "sha256_of", "trusted_status"]

_UNSETTLED_NS = 2_000_000_000


def trusted_status(path: str) -> str:
    """Return the status of a file; "" if it has none or changed in the last two seconds."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return ""
    settled = time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > _UNSETTLED_NS
    return _status(found) if settled else ""


def current_status(file: BufferedReader) -> str:
    """Return the status of an open file."""
    return _status(os.fstat(file.fileno()))


def sha256_of(file: BufferedReader) -> str:
    """Return the sha256 of an open file in hexadecimal, and rewind the file."""
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    return digest


def _status(found: os.stat_result) -> str:
    return f"{found.st_size} {found.st_ino} {found.st_mtime_ns} {found.st_ctime_ns}"
