"""Bias correction: biases that cancel the mean error that int8 adds to a channel.

bias := bias - (E[int8 output] - E[float output])   for each channel, over images and positions

The rounding errors of a channel with few weights do not cancel out: those of the nine weights of a
depthwise kernel shift all its outputs. A mean error that varies too much between images is ignored
(Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
section 4.2; measured on images, as in its appendix D).
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Collection, Sequence

import numpy as np
from ai_edge_litert.schema_py_generated import BufferT, BuiltinOperator

from kpipe.lite.int8.calibrated_model import CalibratedModel
from kpipe.lite.int8.rounding_errors import measure_rounding_errors
from kpipe.lite.tflite_file import copy_model, serialize

__all__ = ["correct_biases", "measure_mean_errors"]

_WITH_BIAS = {
    BuiltinOperator.CONV_2D,
    BuiltinOperator.DEPTHWISE_CONV_2D,
    BuiltinOperator.FULLY_CONNECTED,
}
_MIN_IMAGES = 8
_SIGNIFICANT = 2  # standard errors
_BIAS = 2  # position among an operation's inputs


def measure_mean_errors(
    calibrated: CalibratedModel, images: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the mean error (channels,) that int8 adds to each operation's output, by its name."""
    means: dict[str, list[np.ndarray]] = defaultdict(list)
    for output, values, error in measure_rounding_errors(calibrated, images):
        if values.ndim:
            means[output].append(error.reshape(-1, values.shape[-1]).mean(0, dtype=float))
    return {output: _significant_mean(np.stack(found)) for output, found in means.items()}


def _significant_mean(errors: np.ndarray) -> np.ndarray:
    """Return the mean over images of errors (images, channels), 0 where it may be chance."""
    mean = errors.mean(0)
    if len(errors) < _MIN_IMAGES:
        return np.zeros_like(mean)
    standard_error = errors.std(0, ddof=1) / np.sqrt(len(errors))
    return np.where(np.abs(mean) > _SIGNIFICANT * standard_error, mean, 0)


def correct_biases(calibrated: CalibratedModel, in_float: Collection[str] = ()) -> bytes:
    """Return the content of the model with biases that cancel its mean errors.

    Transposed convolutions, and dense layers without a bias, are not corrected.

    Args:
        calibrated: the model with its ranges and mean errors.
        in_float: outputs of operations that stay in float32, and so are exact.
    """
    if not calibrated.mean_errors:
        return calibrated.content
    parsed = copy_model(calibrated.parsed)
    graph = parsed.subgraphs[0]
    for operation in graph.operators:
        output = graph.tensors[operation.outputs[0]].name.decode()
        code = parsed.operatorCodes[operation.opcodeIndex].builtinCode
        has_bias = len(operation.inputs) > _BIAS and operation.inputs[_BIAS] >= 0
        error = None if output in in_float else calibrated.mean_errors.get(output)
        if code not in _WITH_BIAS or not has_bias or error is None:
            continue
        # Append a new tensor: operations with equal biases share one.
        bias = copy.copy(graph.tensors[operation.inputs[_BIAS]])
        values = np.frombuffer(bytes(parsed.buffers[bias.buffer].data), np.float32)
        corrected = (values - error).astype(np.float32)
        bias.buffer = len(parsed.buffers)
        parsed.buffers.append(BufferT(data=np.frombuffer(corrected.tobytes(), np.uint8)))
        operation.inputs[_BIAS] = len(graph.tensors)
        graph.tensors.append(bias)
    return serialize(parsed)
