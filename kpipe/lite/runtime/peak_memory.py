"""Run a file in a separate process, to measure its memory and because LiteRT may crash.

python -m kpipe.lite.runtime.peak_memory THREADS [PATH] < CONTENT -> {"bytes": 3579904}
                                                                  -> {"error": {"what": ..., ...}}
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from kpipe.errors import ExportError
from kpipe.lite.runtime.interpreter import LiteModel

__all__ = ["peak_memory"]


def peak_memory(source: str | os.PathLike[str] | bytes, threads: int = 1) -> int:
    """Return the bytes by which a new process grows, at most, as it loads and runs a file.

    LiteRT ends the process for some damaged files. Call this first for a file from elsewhere.

    Args:
        source: path of a `.tflite` file, or its content; the content counts as well.
        threads: number of processor threads that LiteRT may use.

    Raises:
        ExportError: the file cannot be run, or the process died.
    """
    path, content = ([], source) if isinstance(source, bytes) else ([os.fspath(source)], b"")
    # Not multiprocessing, which would run the caller's script again.
    done = subprocess.run(
        [sys.executable, "-m", "kpipe.lite.runtime.peak_memory", str(threads), *path],
        input=content,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        end = f"exit code {done.returncode}"
        if done.returncode < 0:
            end = signal.Signals(-done.returncode).name
        raise ExportError(
            f"{path[0] if path else 'the model'} ended the process that tried to run it",
            expected="a complete .tflite file, and enough memory",
            received=f"{end} {done.stderr.decode(errors='replace')[-500:]}".rstrip(),
            fix="export the model again",
        ) from None
    if "error" in found:
        raise ExportError(**found["error"])
    return int(found["bytes"])


def _peak() -> int:
    """Return the peak memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where ru_maxrss is inherited from the parent process
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _main(threads: str, path: str = "") -> dict[str, Any]:
    before = _peak()
    try:
        model = LiteModel(path or sys.stdin.buffer.read(), int(threads))
        model.invoke(np.zeros((1, *model.image_size, 3), model.input_dtype))
    except ExportError as error:
        parts = ("what", "expected", "received", "fix")
        return {"error": {name: getattr(error, name) for name in parts}}
    return {"bytes": _peak() - before}


if __name__ == "__main__":
    print(json.dumps(_main(*sys.argv[1:])))
