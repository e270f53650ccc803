"""What C++ code prints while stages run."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["chatter_kept_apart"]


@contextlib.contextmanager
def chatter_kept_apart(root: Path) -> Iterator[None]:
    """What C++ code prints to stderr goes to a file instead of into the progress display."""
    (root / ".cache").mkdir(parents=True, exist_ok=True)
    shown = os.dup(2)
    python_stderr = sys.stderr
    with (root / ".cache" / "native.log").open("ab") as log:
        os.dup2(log.fileno(), 2)
        sys.stderr = os.fdopen(os.dup(shown), "w", buffering=1)
        try:
            yield
        finally:
            sys.stderr.close()
            sys.stderr = python_stderr
            os.dup2(shown, 2)
            os.close(shown)
