"""How fast and how large exported files are, on this machine.

runs of one image, warmed up: 5th percentile <= median <= 95th percentile, in milliseconds
several files: a few runs of each in turns, so that what else the machine does meets all of them
"""

from __future__ import annotations

import gzip
import numbers
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kpipe.errors import ExportError
from kpipe.lite.runtime.interpreter import LiteModel
from kpipe.lite.runtime.peak_memory import peak_memory

__all__ = ["Benchmark", "benchmark", "compare", "latency"]

_WARM_UP = 10
_TURN = 5

_File = str | os.PathLike[str] | bytes


@dataclass(frozen=True)
class Benchmark:
    """What a file costs.

    Attributes:
        threads: that LiteRT was allowed.
        runs: single images that were timed.
        median_ms: milliseconds for one image; half of the runs took longer.
        p5_ms: 5 % of the runs took less.
        p95_ms: 5 % of the runs took longer.
        ratio: its time over that of the first file compared, in the same turn; median of the turns.
        initialization_ms: from the file to a model that can answer.
        peak_memory: bytes that a process grows by, at most, while it opens the file and runs it.
        size: bytes of the file.
        gzip_size: bytes of the file in a compressed download.
        partitions: in how many pieces the XNNPACK delegate runs the graph; 1 is best.
        undelegated_ops: operations that are left to slower kernels, in the order of the graph.
    """

    threads: int
    runs: int
    median_ms: float
    p5_ms: float
    p95_ms: float
    ratio: float
    initialization_ms: float
    peak_memory: int
    size: int
    gzip_size: int
    partitions: int
    undelegated_ops: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "undelegated_ops": list(self.undelegated_ops)}


def benchmark(path: _File, threads: int = 1, runs: int = 100) -> Benchmark:
    """Time a `.tflite` file on random pixels.

    Args:
        path: the file, or its content.
        threads: processor threads that LiteRT may use.
        runs: how many single images to time, after ten that do not count.
    """
    return compare([path], threads, runs)[0]


def compare(paths: Sequence[_File], threads: int = 1, runs: int = 100) -> list[Benchmark]:
    """Time several `.tflite` files in turns, five runs each, on random pixels.

    Args:
        paths: the files, or their contents.
        threads: processor threads that LiteRT may use.
        runs: how many single images to time of each file, after ten that do not count.

    Raises:
        ExportError: no runs, or a file that is not right.
    """
    models, openings = [], []
    for path in paths:
        start = time.perf_counter()
        models.append(LiteModel(path, threads))
        openings.append(time.perf_counter() - start)
    durations = _durations(models, runs)
    found = []
    for model, opening, times in zip(models, openings, durations, strict=True):
        p5, median, p95 = np.percentile(times, [5, 50, 95]) * 1000
        partitions, undelegated_ops = model.delegation()
        found.append(
            Benchmark(
                threads=threads,
                runs=runs,
                median_ms=float(median),
                p5_ms=float(p5),
                p95_ms=float(p95),
                ratio=float(np.median(_by_turn(times) / _by_turn(durations[0]))),
                initialization_ms=opening * 1000,
                peak_memory=peak_memory(model.content, threads),
                size=len(model.content),
                gzip_size=len(gzip.compress(model.content, mtime=0)),
                partitions=partitions,
                undelegated_ops=undelegated_ops,
            )
        )
    return found


def latency(model: Any, threads: int = 1, runs: int = 100, *, quantize: str | None = None) -> float:
    """Median milliseconds for one image by LiteRT.

    Args:
        model: a `.tflite` path or content, or a Keras model, which is converted first.
        threads: processor threads that LiteRT may use.
        runs: how many single images to time.
        quantize: how a Keras model is converted, see `convert`. The ranges of "int8" come from
            random pixels and are not refined: speed does not depend on them.
    """
    if not isinstance(model, (str, os.PathLike, bytes)):
        # Only a Keras model needs Keras: timing a file must not load TensorFlow.
        from kpipe.lite.export.conversion import calibrated, convert, input_shape, said_of
        from kpipe.lite.int8.quantizing import quantized

        if quantize == "int8":
            shape = (1, *input_shape(model))
            pixels = np.random.default_rng(0).uniform(0, 255, (2, *shape)).astype("float32")
            with said_of(model):
                model = quantized(calibrated(model, list(pixels)))
        else:
            model = convert(model, quantize)
    return float(np.median(_durations([LiteModel(model, threads)], runs)[0])) * 1000


def _durations(models: Sequence[LiteModel], runs: int) -> list[list[float]]:
    """Seconds of `runs` single images by each model."""
    if not isinstance(runs, numbers.Integral) or runs < 1 or not models:
        raise ExportError(
            "nothing to time",
            expected="a file, and runs, a whole number of 1 or more",
            received=f"{len(models)} files, runs={runs!r}",
        )
    pixels = [np.random.default_rng(0).integers(0, 256, (1, *m.image_size, 3)) for m in models]
    images = [p.astype(m.input_dtype) for p, m in zip(pixels, models, strict=True)]
    for model, image in zip(models, images, strict=True):
        for _ in range(_WARM_UP):
            model.invoke(image)
    durations: list[list[float]] = [[] for _ in models]
    while len(durations[-1]) < runs:
        for model, image, times in zip(models, images, durations, strict=True):
            for _ in range(min(_TURN, runs - len(times))):
                start = time.perf_counter()
                model.invoke(image)
                times.append(time.perf_counter() - start)
    return durations


def _by_turn(times: Sequence[float]) -> np.ndarray:
    """The median of each turn."""
    turns = [times[start : start + _TURN] for start in range(0, len(times), _TURN)]
    return np.array([np.median(turn) for turn in turns])
