"""How much memory a file needs, in a process that does nothing else."""

from __future__ import annotations

import multiprocessing
import resource
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from kpipe.errors import ExportError
from kpipe.lite.interpreter import LiteModel

__all__ = ["peak_memory"]


def peak_memory(content: bytes, threads: int = 1) -> int:
    """Bytes that a fresh process grows by, at most, while it opens a file and answers an image.

    Args:
        content: of a `.tflite` file; its own bytes count.
        threads: processor threads that LiteRT may use.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    # Daemonic, so that it does not outlive a caller that is killed.
    process = context.Process(target=_measure, args=(theirs, threads), daemon=True)
    process.start()
    theirs.close()
    try:
        ours.send_bytes(content)
        return int(ours.recv())
    except (EOFError, BrokenPipeError) as error:
        process.join()
        raise ExportError(
            "the process that measures memory died",
            received=f"exit code {process.exitcode}",
            fix="see whether there is memory enough to run the file",
        ) from error
    finally:
        process.join()


def _measure(pipe: Connection, threads: int) -> None:
    before = _peak()
    model = LiteModel(pipe.recv_bytes(), threads)
    model.invoke(np.zeros((1, *model.image_size, 3), model.input_dtype))
    pipe.send(_peak() - before)


def _peak() -> int:
    """Most bytes that this process has held so far."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where ru_maxrss is inherited from the process that started it
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
