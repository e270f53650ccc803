"""Latency and size of exported files on this machine.

runs of one image after a warm-up: 5th percentile <= median <= 95th percentile, in milliseconds
several files: a few runs of each in turns, so that other load on the machine affects all of them
"""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kpipe.errors import ExportError
from kpipe.installation import translate_missing_packages
from kpipe.lite.runtime.interpreter import LiteModel
from kpipe.lite.runtime.peak_memory import peak_memory
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["Benchmark", "benchmark", "compare", "latency"]

_WARM_UP = 10
_RUNS_PER_TURN = 5

_File = str | os.PathLike[str] | bytes


@dataclass(frozen=True)
class Benchmark:
    """Latency, memory, and size of a file.

    Attributes:
        threads: number of threads that LiteRT was allowed.
        runs: number of single images that were timed.
        median_ms: median milliseconds for one image.
        p5_ms: 5th percentile, in milliseconds.
        p95_ms: 95th percentile, in milliseconds.
        ratio: latency over that of the first file compared, in the same turn; median of all turns.
        initialization_ms: milliseconds to load the file.
        peak_memory: bytes by which a process grows, at most, as it loads and runs the file.
        size: size of the file in bytes.
        gzip_size: size of the compressed file in bytes.
        partitions: number of pieces of the graph that the XNNPACK delegate runs; 1 is best.
        undelegated_ops: operations that run in slower kernels, in graph order.

    Example:
        >>> from keras import Input, Sequential, layers
        >>> from kpipe.lite import benchmark, convert
        >>> net = Sequential([Input((8, 8, 3)), layers.GlobalAveragePooling2D(), layers.Softmax()])
        >>> found = benchmark(convert(net), runs=5)
        >>> found.partitions, found.undelegated_ops
        (1, ())
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
        """Return plain values for JSON."""
        return {**asdict(self), "undelegated_ops": list(self.undelegated_ops)}


@names_wrong_kinds
def benchmark(path: _File, threads: int = 1, runs: int = 100) -> Benchmark:
    """Time a `.tflite` file on random pixels.

    Args:
        path: the file, or its content.
        threads: number of processor threads that LiteRT may use.
        runs: number of single images to time, after ten that do not count.

    Raises:
        ExportError: `runs` is below 1, or the file cannot be run.

    Example:
        >>> from keras import Input, Sequential, layers
        >>> from kpipe.lite import benchmark, convert
        >>> net = Sequential([Input((8, 8, 3)), layers.GlobalAveragePooling2D(), layers.Softmax()])
        >>> found = benchmark(convert(net), runs=5)
        >>> 0 < found.p5_ms <= found.median_ms <= found.p95_ms
        True
    """
    return compare([path], threads, runs)[0]


@names_wrong_kinds
def compare(paths: Sequence[_File], threads: int = 1, runs: int = 100) -> list[Benchmark]:
    """Time several `.tflite` files in turns of five runs, on random pixels.

    Args:
        paths: the files, or their contents.
        threads: number of processor threads that LiteRT may use.
        runs: number of single images to time for each file, after ten that do not count.

    Raises:
        ExportError: there are no files, `runs` is below 1, or a file cannot be run.

    Example:
        >>> from keras import Input, Sequential, layers
        >>> from kpipe.lite import compare, convert
        >>> net = Sequential([Input((8, 8, 3)), layers.GlobalAveragePooling2D(), layers.Softmax()])
        >>> first, second = compare([convert(net), convert(net, "float16")], runs=5)
        >>> first.ratio
        1.0
    """
    memory = [peak_memory(path, threads) for path in paths]  # first: a file may end the process
    models, loading = [], []
    for path in paths:
        start = time.perf_counter()
        models.append(LiteModel(path, threads))
        loading.append(time.perf_counter() - start)
    durations = _durations(models, runs)
    found = []
    rows = zip(models, loading, memory, durations, strict=True)
    for model, seconds, peak, times in rows:
        p5, median, p95 = np.percentile(times, [5, 50, 95]) * 1000
        partitions, undelegated_ops = model.inspect_delegation()
        found.append(
            Benchmark(
                threads=threads,
                runs=runs,
                median_ms=float(median),
                p5_ms=float(p5),
                p95_ms=float(p95),
                ratio=float(np.median(_turn_medians(times) / _turn_medians(durations[0]))),
                initialization_ms=seconds * 1000,
                peak_memory=peak,
                size=len(model.content),
                gzip_size=len(gzip.compress(model.content, mtime=0)),
                partitions=partitions,
                undelegated_ops=undelegated_ops,
            )
        )
    return found


@names_wrong_kinds
def latency(model: Any, threads: int = 1, runs: int = 100, *, quantize: str | None = None) -> float:
    """Return the median latency of LiteRT for one image, in milliseconds.

    Args:
        model: path or content of a `.tflite` file, or a Keras model, which is converted first.
        threads: number of processor threads that LiteRT may use.
        runs: number of single images to time, after ten that do not count.
        quantize: how to convert a Keras model, see `convert`. Random pixels calibrate "int8", and
            its ranges are not refined: latency does not depend on them.

    Raises:
        ExportError: `runs` is below 1, or the model cannot be converted or run.

    Example:
        >>> from keras import Input, Sequential, layers
        >>> from kpipe.lite import latency
        >>> net = Sequential([Input((8, 8, 3)), layers.GlobalAveragePooling2D(), layers.Softmax()])
        >>> latency(net, runs=5) > 0
        True
    """
    if not isinstance(model, (str, os.PathLike, bytes)):
        # Imported here, so that timing a file does not load TensorFlow.
        with translate_missing_packages("kpipe.lite.latency of a Keras model"):
            from kpipe.lite.export.checks import check_classifier, converter_errors
            from kpipe.lite.export.conversion import calibrate, convert
            from kpipe.lite.int8.quantizing import quantize_to_int8

        if quantize == "int8":
            shape = (1, *check_classifier(model))
            pixels = np.random.default_rng(0).uniform(0, 255, (2, *shape)).astype("float32")
            with converter_errors(model):
                model = quantize_to_int8(calibrate(model, list(pixels)))
        else:
            model = convert(model, quantize)
    return float(np.median(_durations([LiteModel(model, threads)], runs)[0])) * 1000


def _durations(models: Sequence[LiteModel], runs: int) -> list[list[float]]:
    """Return the seconds of each run, one list for each model."""
    if runs < 1 or not models:
        raise ExportError(
            "there is nothing to time",
            expected="at least one file and one run",
            received=f"{len(models)} files, runs={runs}",
        )
    pixels = [np.random.default_rng(0).integers(0, 256, (1, *m.image_size, 3)) for m in models]
    images = [p.astype(m.input_dtype) for p, m in zip(pixels, models, strict=True)]
    for model, image in zip(models, images, strict=True):
        for _ in range(_WARM_UP):
            model.invoke(image)
    durations: list[list[float]] = [[] for _ in models]
    while len(durations[-1]) < runs:
        for model, image, times in zip(models, images, durations, strict=True):
            for _ in range(min(_RUNS_PER_TURN, runs - len(times))):
                start = time.perf_counter()
                model.invoke(image)
                times.append(time.perf_counter() - start)
    return durations


def _turn_medians(times: Sequence[float]) -> np.ndarray:
    """Return the median of each turn."""
    starts = range(0, len(times), _RUNS_PER_TURN)
    return np.array([np.median(times[start : start + _RUNS_PER_TURN]) for start in starts])
