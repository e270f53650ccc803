"""Keep the messages of C++ code off the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["log_native_stderr"]


@contextlib.contextmanager
def log_native_stderr(root: Path) -> Iterator[None]:
    """Write what C++ code prints to stderr to a log file; Python keeps the terminal."""
    (root / ".cache").mkdir(parents=True, exist_ok=True)
    terminal = os.dup(2)
    python_stderr = sys.stderr
    with (root / ".cache" / "native.log").open("ab") as log:
        os.dup2(log.fileno(), 2)
        encoding = python_stderr.encoding or "utf-8"
        copy = os.dup(terminal)
        sys.stderr = os.fdopen(copy, "w", 1, encoding=encoding, errors="backslashreplace")
        try:
            yield
        finally:
            sys.stderr.close()
            sys.stderr = python_stderr
            os.dup2(terminal, 2)
            os.close(terminal)
