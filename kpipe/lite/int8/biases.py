"""Biases that take back what rounding to int8 adds to the mean of a channel.

    E[int8 result] - E[float result]  of each channel, over images and places   ->   its bias, less

The rounding errors of a kernel do not cancel out where a channel has few weights: the nine of a
depthwise one shift all of its results. A mean that the images do not agree about is left (Nagel et
al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2;
measured, as in its appendix D).
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from ai_edge_litert.schema_py_generated import BufferT, BuiltinOperator

from kpipe.lite.int8.rounding_errors import rounding_errors
from kpipe.lite.tflite_file import opened, written

__all__ = ["corrected", "mean_errors"]

_WITH_BIAS = {
    BuiltinOperator.CONV_2D,
    BuiltinOperator.DEPTHWISE_CONV_2D,
    BuiltinOperator.FULLY_CONNECTED,
}
_LEAST_IMAGES = 8
_CERTAIN = 2  # standard errors
_BIAS = 2  # its place among the operation's inputs


def mean_errors(ranges: bytes, images: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """How much int8 adds to each channel of each result, (channels,) by the tensor's name.

    Args:
        ranges: a calibrated file.
        images: float32 (1, height, width, 3) in [0, 255].
    """
    means: dict[str, list[np.ndarray]] = defaultdict(list)
    for result, values, error in rounding_errors(ranges, images):
        if values.ndim:
            means[result].append(error.reshape(-1, values.shape[-1]).mean(0, dtype=float))
    return {result: _certain(np.stack(found)) for result, found in means.items()}


def _certain(found: np.ndarray) -> np.ndarray:
    """The mean over images (images, channels); 0 where it may as well be chance."""
    mean = found.mean(0)
    if len(found) < _LEAST_IMAGES:
        return np.zeros_like(mean)
    return np.where(np.abs(mean) > _CERTAIN * found.std(0, ddof=1) / np.sqrt(len(found)), mean, 0)


def corrected(ranges: bytes, errors: Mapping[str, np.ndarray], keep: Collection[str] = ()) -> bytes:
    """A calibrated file with biases that take back the errors of convolutions and dense layers.

    Transposed convolutions, and dense layers without a bias, stay as they are.

    Args:
        ranges: a calibrated file.
        errors: of `mean_errors`.
        keep: results of operations that will stay in float32, and so make no error.
    """
    if not errors:  # as where speed alone is measured
        return ranges
    model = opened(ranges)
    graph = model.subgraphs[0]
    for operation in graph.operators:
        result = graph.tensors[operation.outputs[0]].name.decode()
        code = model.operatorCodes[operation.opcodeIndex].builtinCode
        has_bias = len(operation.inputs) > _BIAS and operation.inputs[_BIAS] >= 0
        if code not in _WITH_BIAS or not has_bias or result not in errors or result in keep:
            continue
        # Its own, since operations with equal biases share one.
        bias = copy.copy(graph.tensors[operation.inputs[_BIAS]])
        values = np.frombuffer(bytes(model.buffers[bias.buffer].data), np.float32)
        less = (values - errors[result]).astype(np.float32)
        bias.buffer = len(model.buffers)
        model.buffers.append(BufferT(data=np.frombuffer(less.tobytes(), np.uint8)))
        operation.inputs[_BIAS] = len(graph.tensors)
        graph.tensors.append(bias)
    return written(model)
