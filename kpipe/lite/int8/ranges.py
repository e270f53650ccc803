"""The range of each tensor of an int8 file: that of the least squared rounding error.

    q = clip(round(x / scale) + zero_point, 0, 255),    scale = (high - low) / 255

From the least to the largest value seen, a few far values make the steps coarse for all others. A
narrower range clips these few; of all ranges between, that with the least sum of squares is taken
(as "MSE" in Nagel et al. 2021, "A White Paper on Neural Network Quantization", section 3.1).

Not so for what a few large values decide: answers, the scores that a softmax makes them of, and
other rows of numbers such as pooled features keep their ends, and so do the pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert.schema_py_generated import BuiltinOperator, TensorType

from kpipe.lite.runtime.interpreter import inspectable
from kpipe.lite.tflite_file import opened, written

__all__ = ["least_error", "narrowed", "widened"]

_STEPS = 255
_BINS = 2048
_SHARES = np.linspace(1, 0.3, 36)  # of an end of the range
_LEAST_VALUES = 10_000  # a range is not fitted to a handful
_ROW = 2  # dimensions: (1, classes)
_NOTHING = 1e-30


def widened(ranges: bytes) -> bytes:
    """A calibrated file in which tensors that were 0 in all images have a range, of 0 to 1.

    Within none, LiteRT ends the process when it prepares an addition.
    """
    model = opened(ranges)
    empty = [
        told
        for tensor in model.subgraphs[0].tensors
        if _is_span(told := tensor.quantization) and told.max[0] - told.min[0] < _NOTHING
    ]
    for told in empty:
        told.min[0], told.max[0] = 0.0, 1.0
    return written(model) if empty else ranges


def narrowed(ranges: bytes, images: Sequence[np.ndarray]) -> bytes:
    """A calibrated file whose ranges are those of least error.

    Args:
        ranges: a calibrated file.
        images: float32 (1, height, width, 3) in [0, 255].
    """
    model = opened(ranges)
    graph = model.subgraphs[0]
    wide = {
        index: (float(tensor.quantization.min[0]), float(tensor.quantization.max[0]))
        for index, tensor in enumerate(graph.tensors)
        if tensor.type == TensorType.FLOAT32
        and _is_span(tensor.quantization)
        and len(tensor.shape) > _ROW
        and index not in graph.inputs
    }
    for operation in graph.operators:
        if model.operatorCodes[operation.opcodeIndex].builtinCode == BuiltinOperator.SOFTMAX:
            wide.pop(operation.inputs[0], None)
    # From what is seen here on: where an addition writes over what it reads, the calibrator gives
    # its operand the range of the sum.
    for index, (counts, sums) in _histograms(ranges, images, wide).items():
        # Each bin stands for its mean: a tensor of few values, as rescaled pixels, is exact.
        values, counts = sums[counts > 0] / counts[counts > 0], counts[counts > 0]
        if counts.sum() >= _LEAST_VALUES and values.any():
            told = graph.tensors[index].quantization
            told.min[0], told.max[0] = least_error(values, counts)
    return written(model)


def _is_span(told: Any) -> bool:
    """Whether the range of a whole tensor is there; that of a constant is not."""
    return told is not None and told.min is not None and len(told.min) == 1


def _histograms(
    ranges: bytes, images: Sequence[np.ndarray], spans: Mapping[int, tuple[float, float]]
) -> dict[int, np.ndarray]:
    """How many values of each tensor lie in each bin between its ends, and their sum."""
    interpreter = inspectable(ranges)
    (entry,) = interpreter.get_input_details()
    found = {index: np.zeros((2, _BINS)) for index in spans}
    for image in images:
        interpreter.set_tensor(entry["index"], image)
        interpreter.invoke()
        for index, (counts, sums) in found.items():
            low, high = spans[index]
            values = interpreter.get_tensor(index).ravel().astype(float)
            bins = ((values - low) * (_BINS / (high - low))).clip(0, _BINS - 1).astype(int)
            counts += np.bincount(bins, minlength=_BINS)
            sums += np.bincount(bins, values, _BINS)
    return found


def least_error(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """The ends between which 8 bits hold values with the least squared error.

    Args:
        values: (n,), not all of them 0.
        counts: how often each of them is there, (n,).

    Returns:
        The ends, 0 between them, as zeros are to be exact.
    """

    def errors(lows: np.ndarray, highs: np.ndarray) -> np.ndarray:
        scale = (highs - lows)[:, None] / _STEPS
        zero = np.round(-lows[:, None] / scale)
        held = (np.clip(np.round(values / scale) + zero, 0, _STEPS) - zero) * scale
        return ((held - values) ** 2) @ counts

    least, most = min(values.min(), 0.0) * _SHARES, max(values.max(), 0.0) * _SHARES
    low, high = least[0], most[0]
    for _ in range(2):  # one end, then the other, and once more
        low = least[np.argmin(errors(least, np.full_like(least, high)))]
        high = most[np.argmin(errors(np.full_like(most, low), most))]
    return float(low), float(high)
