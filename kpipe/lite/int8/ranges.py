"""The range of each tensor of an int8 file: the one with the least squared rounding error.

q = clip(round(x / scale) + zero_point, 0, 255),    scale = (high - low) / 255

If the range spans the smallest to the largest value, a few outliers make the steps coarse for all
other values. A narrower range clips the outliers. Of all ranges between, the one with the least sum
of squared errors is chosen ("MSE" in Nagel et al. 2021, "A White Paper on Neural Network
Quantization", section 3.1).

Some tensors depend on a few large values and keep their ranges: the outputs, the logits before a
softmax, other vectors such as pooled features, and the input pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ai_edge_litert.schema_py_generated import BuiltinOperator, TensorType

from kpipe.lite.int8.calibrated_model import CalibratedModel
from kpipe.lite.runtime.interpreter import open_inspectable
from kpipe.lite.tflite_file import copy_model

__all__ = ["fill_empty_ranges", "fit_ranges", "least_error_range"]

_STEPS = 255
_BINS = 2048
_FRACTIONS = np.linspace(1, 0.3, 36)  # of each end of the range
_MIN_VALUES = 10_000  # fewer values do not determine a range
_VECTOR = 2  # dimensions: (1, classes)
_EMPTY = 1e-30


def fill_empty_ranges(parsed: Any) -> None:
    """Give tensors that are 0 in all calibration images the range [0, 1], in place.

    LiteRT aborts the process when it prepares an addition with an empty range.
    """
    for tensor in parsed.subgraphs[0].tensors:
        quantization = tensor.quantization
        if _has_range(quantization) and quantization.max[0] - quantization.min[0] < _EMPTY:
            quantization.min[0], quantization.max[0] = 0.0, 1.0


def fit_ranges(calibrated: CalibratedModel, images: Sequence[np.ndarray]) -> CalibratedModel:
    """Return the model with the ranges of least squared rounding error on the images."""
    parsed = copy_model(calibrated.parsed)
    graph = parsed.subgraphs[0]
    ranges = {
        index: (float(tensor.quantization.min[0]), float(tensor.quantization.max[0]))
        for index, tensor in enumerate(graph.tensors)
        if tensor.type == TensorType.FLOAT32
        and _has_range(tensor.quantization)
        and len(tensor.shape) > _VECTOR
        and index not in graph.inputs
    }
    for operation in graph.operators:
        if parsed.operatorCodes[operation.opcodeIndex].builtinCode == BuiltinOperator.SOFTMAX:
            ranges.pop(operation.inputs[0], None)
    # Fit the values measured here: where an addition overwrites its operand, TensorFlow's
    # calibrator records the range of the sum for the operand.
    for index, (counts, sums) in _histograms(calibrated.float_file, images, ranges).items():
        # The mean represents a bin: a tensor of few distinct values, as rescaled pixels, is exact.
        values, counts = sums[counts > 0] / counts[counts > 0], counts[counts > 0]
        if counts.sum() >= _MIN_VALUES and values.any():
            quantization = graph.tensors[index].quantization
            quantization.min[0], quantization.max[0] = least_error_range(values, counts)
    return replace(calibrated, parsed=parsed)


def _has_range(quantization: Any) -> bool:
    """Return whether a tensor has one range; constants have none."""
    return quantization is not None and quantization.min is not None and len(quantization.min) == 1


def _histograms(
    content: bytes, images: Sequence[np.ndarray], ranges: Mapping[int, tuple[float, float]]
) -> dict[int, np.ndarray]:
    """Return the counts and the sums of values by bin, (2, bins), for each tensor."""
    interpreter = open_inspectable(content)
    (pixels,) = interpreter.get_input_details()
    histograms = {index: np.zeros((2, _BINS)) for index in ranges}
    for image in images:
        interpreter.set_tensor(pixels["index"], image)
        interpreter.invoke()
        for index, (counts, sums) in histograms.items():
            low, high = ranges[index]
            values = interpreter.get_tensor(index).ravel().astype(float)
            bins = ((values - low) * (_BINS / (high - low))).clip(0, _BINS - 1).astype(int)
            counts += np.bincount(bins, minlength=_BINS)
            sums += np.bincount(bins, values, _BINS)
    return histograms


def least_error_range(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Return the range in which 8 bits represent the values with the least squared error.

    Args:
        values: (n,), not all 0.
        counts: number of occurrences of each value, (n,).

    Returns:
        (low, high) with low <= 0 <= high, so that zeros are exact.
    """

    def errors(lows: np.ndarray, highs: np.ndarray) -> np.ndarray:
        scale = (highs - lows)[:, None] / _STEPS
        zero = np.round(-lows[:, None] / scale)
        rounded = (np.clip(np.round(values / scale) + zero, 0, _STEPS) - zero) * scale
        return ((rounded - values) ** 2) @ counts

    lows, highs = min(values.min(), 0.0) * _FRACTIONS, max(values.max(), 0.0) * _FRACTIONS
    low, high = lows[0], highs[0]
    for _ in range(2):  # coordinate descent: one end, then the other, twice
        low = lows[np.argmin(errors(lows, np.full_like(lows, high)))]
        high = highs[np.argmin(errors(np.full_like(highs, low), highs))]
    return float(low), float(high)
