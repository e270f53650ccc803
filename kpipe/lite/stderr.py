"""The converter and the interpreter talk on file descriptor 2, below Python.

stderr of the body -> known chatter: dropped
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

# glog information and warnings, TFLite's INFO lines, and one print left in the quantizer.
_CHATTER = re.compile(rb"[IW]\d{4} |INFO: |WARNING: All log messages|fully_quantize: ")


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hold back what C++ libraries write to stderr while the body runs.

    When the body raises, the exception speaks for it: the libraries here repeat their errors in it.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
        held.seek(0)
        os.write(2, b"".join(line for line in held if not _CHATTER.match(line)))
