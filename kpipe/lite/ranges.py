"""The range of each tensor of an int8 file: that of the least squared rounding error.

    q = clip(round(x / scale) + zero_point, 0, 255),    scale = (high - low) / 255

From the least to the largest value seen, a few far values make the steps coarse for all others. A
narrower range clips these few; of all ranges between, that with the least sum of squares is taken
(as "MSE" in Nagel et al. 2021, "A White Paper on Neural Network Quantization", section 3.1).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from ai_edge_litert.schema_py_generated import TensorType

from kpipe.lite.chatter import quiet_stderr
from kpipe.lite.rewriting import opened, written

__all__ = ["least_error", "narrowed"]

_STEPS = 255
_BINS = 2048
_SHARES = np.linspace(1, 0.3, 36)  # of an end of the range
_LEAST_VALUES = 10_000  # a range is not fitted to a handful


def narrowed(ranges: bytes, images: Sequence[np.ndarray]) -> bytes:
    """A calibrated file whose ranges are those of least error, all but that of the pixels.

    Args:
        ranges: a calibrated file.
        images: float32 (1, height, width, 3) in [0, 255].
    """
    model = opened(ranges)
    graph = model.subgraphs[0]
    spans = {
        index: tensor.quantization
        for index, tensor in enumerate(graph.tensors)
        if tensor.type == TensorType.FLOAT32
        and _is_span(tensor.quantization)
        and index not in graph.inputs
    }
    for index, (counts, sums) in _histograms(ranges, images, spans).items():
        if counts.sum() >= _LEAST_VALUES:
            span = spans[index]
            # Each bin stands for its mean: a tensor of few values, as rescaled pixels, is exact.
            values, counts = sums[counts > 0] / counts[counts > 0], counts[counts > 0]
            span.min[0], span.max[0] = least_error(span.min[0], span.max[0], values, counts)
    return written(model)


def _is_span(told: Any) -> bool:
    """Whether the range of a whole tensor is there; that of a constant is not."""
    return told is not None and told.min is not None and len(told.min) == 1


def _histograms(
    ranges: bytes, images: Sequence[np.ndarray], spans: dict[int, Any]
) -> dict[int, np.ndarray]:
    """How many values of each tensor lie in each bin between its ends, and their sum."""
    with quiet_stderr(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors")
        interpreter = Interpreter(
            model_content=ranges,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    found = {i: np.zeros((2, _BINS)) for i, span in spans.items() if span.min[0] < span.max[0]}
    for image in images:
        interpreter.set_tensor(entry["index"], image)
        interpreter.invoke()
        for index, (counts, sums) in found.items():
            low, high = spans[index].min[0], spans[index].max[0]
            values = interpreter.get_tensor(index).ravel()
            bins = ((values - low) * (_BINS / (high - low))).clip(0, _BINS - 1).astype(int)
            counts += np.bincount(bins, minlength=_BINS)
            sums += np.bincount(bins, values, _BINS)
    return found


def least_error(
    low: float, high: float, values: np.ndarray, counts: np.ndarray
) -> tuple[float, float]:
    """The ends between which 8 bits hold values with the least squared error.

    Args:
        low: the least value.
        high: the largest value.
        values: between them, (n,).
        counts: how often each of them is there, (n,).

    Returns:
        The ends, 0 between them, as zeros are to be exact.
    """

    def errors(lows: np.ndarray, highs: np.ndarray) -> np.ndarray:
        scale = (highs - lows)[:, None] / _STEPS
        zero = np.round(-lows[:, None] / scale)
        held = (np.clip(np.round(values / scale) + zero, 0, _STEPS) - zero) * scale
        return ((held - values) ** 2) @ counts

    least, most = min(low, 0.0) * _SHARES, max(high, 0.0) * _SHARES
    low, high = least[0], most[0]
    for _ in range(2):  # one end, then the other, and once more
        low = least[np.argmin(errors(least, np.full_like(least, high)))]
        high = most[np.argmin(errors(np.full_like(most, low), most))]
    return float(low), float(high)
