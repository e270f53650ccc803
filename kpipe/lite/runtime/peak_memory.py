"""How much memory a file needs, in a process that does nothing else.

python -m kpipe.lite.runtime.peak_memory THREADS < FILE
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from kpipe.errors import ExportError
from kpipe.lite.runtime.interpreter import LiteModel

__all__ = ["peak_memory"]


def peak_memory(content: bytes, threads: int = 1) -> int:
    """Bytes that a fresh process grows by, at most, while it opens a file and answers an image.

    Args:
        content: of a `.tflite` file; its own bytes count.
        threads: processor threads that LiteRT may use.

    Raises:
        ExportError: the process died.
    """
    # Not by multiprocessing, which would run a caller's script anew.
    done = subprocess.run(
        [sys.executable, "-m", "kpipe.lite.runtime.peak_memory", str(threads)],
        input=content,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    if done.returncode:
        raise ExportError(
            "the process that measures memory died",
            received=f"exit code {done.returncode}: {done.stderr.decode(errors='replace')[-500:]}",
            fix="see whether there is memory enough to run the file",
        )
    return int(done.stdout)


def _peak() -> int:
    """Most bytes that this process has held so far."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where ru_maxrss is inherited from the process that started it
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    before = _peak()
    model = LiteModel(sys.stdin.buffer.read(), int(sys.argv[1]))
    model.invoke(np.zeros((1, *model.image_size, 3), model.input_dtype))
    print(_peak() - before)
