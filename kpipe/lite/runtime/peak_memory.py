"""The memory that a file needs, measured in a process that does nothing else.

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
    """Return the bytes by which a new process grows, at most, as it loads and runs a file.

    Args:
        content: content of a `.tflite` file, which counts as well.
        threads: number of processor threads that LiteRT may use.

    Raises:
        ExportError: the process died.
    """
    # Not multiprocessing, which would run the caller's script again.
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
            fix="check that there is enough memory to run the file",
        )
    return int(done.stdout)


def _peak() -> int:
    """Return the peak memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where ru_maxrss is inherited from the parent process
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    before = _peak()
    model = LiteModel(sys.stdin.buffer.read(), int(sys.argv[1]))
    model.invoke(np.zeros((1, *model.image_size, 3), model.input_dtype))
    print(_peak() - before)
