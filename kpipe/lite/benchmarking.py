"""How fast and how large an exported file is, on this machine.

runs of one image, warmed up: 5th percentile <= median <= 95th percentile, in milliseconds
"""

from __future__ import annotations

import gzip
import os
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kpipe.errors import ExportError
from kpipe.lite.interpreter import LiteModel

__all__ = ["Benchmark", "benchmark", "latency"]

_WARM_UP = 10


@dataclass(frozen=True)
class Benchmark:
    """Latency in milliseconds for one image, sizes in bytes."""

    threads: int
    runs: int
    median_ms: float
    p5_ms: float
    p95_ms: float
    initialization_ms: float
    size: int
    gzip_size: int

    def to_dict(self) -> dict[str, float]:
        """Plain values for JSON."""
        return asdict(self)


def benchmark(path: str | os.PathLike[str] | bytes, threads: int = 1, runs: int = 100) -> Benchmark:
    """Time a `.tflite` file on random pixels.

    Args:
        path: the file, or its content.
        threads: processor threads that LiteRT may use.
        runs: how many single images to time, after ten that do not count.
    """
    if runs < 1:
        raise ExportError("nothing to time", expected="runs >= 1", received=f"runs={runs}")
    start = time.perf_counter()
    model = LiteModel(path, threads)
    initialization = time.perf_counter() - start
    pixels = np.random.default_rng(0).integers(0, 256, (1, *model.image_size, 3))
    image = pixels.astype(model.input_dtype)
    durations = []
    for _ in range(_WARM_UP + runs):
        start = time.perf_counter()
        model.invoke(image)
        durations.append(time.perf_counter() - start)
    p5, median, p95 = np.percentile(durations[_WARM_UP:], [5, 50, 95]) * 1000
    return Benchmark(
        threads=threads,
        runs=runs,
        median_ms=float(median),
        p5_ms=float(p5),
        p95_ms=float(p95),
        initialization_ms=initialization * 1000,
        size=len(model.content),
        gzip_size=len(gzip.compress(model.content, mtime=0)),
    )


def latency(model: Any, threads: int = 1, runs: int = 100, *, quantize: str | None = None) -> float:
    """Median milliseconds for one image by LiteRT.

    Args:
        model: a `.tflite` path or content, or a Keras model, which is converted first.
        threads: processor threads that LiteRT may use.
        runs: how many single images to time.
        quantize: how a Keras model is converted, see `convert`. The ranges of "int8" come from
            random pixels: speed does not depend on them.
    """
    if not isinstance(model, (str, os.PathLike, bytes)):
        # Only a Keras model needs Keras: timing a file must not load TensorFlow.
        from kpipe.lite.conversion import convert

        calibration = None
        if quantize == "int8":
            shape = (2, *model.input_shape[1:])
            calibration = [np.random.default_rng(0).uniform(0, 255, shape).astype("float32")]
        model = convert(model, quantize, calibration)
    return benchmark(model, threads, runs).median_ms
