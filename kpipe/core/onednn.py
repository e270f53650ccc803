"""Let TensorFlow use oneDNN on x86 processors where it leaves it off.

TensorFlow turns oneDNN on by itself only on processors with AVX-512 VNNI or its successors. On
those with AVX2 alone, which most desks have, a training step of a whole mobile network takes half
the time with it (docs/evidence.md). TensorFlow reads the environment variable once, when it is
loaded.
"""

from __future__ import annotations

import os
import platform
import sys

__all__ = ["enable_onednn"]

_VARIABLE = "TF_ENABLE_ONEDNN_OPTS"


def enable_onednn() -> str:
    """Turn oneDNN on in this process and its children; return a sentence that says so, or "".

    Nothing changes if the user set `TF_ENABLE_ONEDNN_OPTS`, if TensorFlow is loaded already, or on
    other than x86 processors.

    Example:
        >>> import os
        >>> from kpipe.core.onednn import enable_onednn
        >>> os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # the user's choice stays
        >>> enable_onednn()
        ''
    """
    x86 = platform.machine().lower() in ("x86_64", "amd64") and sys.platform != "darwin"
    if not x86 or _VARIABLE in os.environ or "tensorflow" in sys.modules:
        return ""
    os.environ[_VARIABLE] = "1"
    return f"TensorFlow uses oneDNN ({_VARIABLE}=0 turns it off)"
