"""A filter for file descriptor 2, to which C++ libraries write below Python.

stderr of the body -> known log messages: dropped
                   -> anything else: printed when the body ends
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet_stderr"]

# glog information and warnings, TFLite's INFO lines, and a debug print left in the quantizer.
_LOG_MESSAGE = re.compile(rb"[IW]\d{4} |INFO: |WARNING: All log messages|fully_quantize: ")


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Drop the log messages that the converter and the interpreter write to stderr.

    If the body raises, drop everything: these libraries repeat their errors in the exception.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
        captured.seek(0)
        os.write(2, b"".join(line for line in captured if not _LOG_MESSAGE.match(line)))
