"""From a calibrated float32 model to an int8 file.

calibrated model, images -> ranges of least error, mean errors of each channel
calibrated model         -> int8 file, with the given operations in float32
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert.schema_py_generated import BuiltinOperator
from tensorflow.lite.python.convert import deduplicate_readonly_buffers, mlir_quantize

from kpipe.lite.int8.biases import correct_biases, measure_mean_errors
from kpipe.lite.int8.calibrated_model import CalibratedModel
from kpipe.lite.int8.ranges import fit_ranges
from kpipe.lite.stderr import quiet_stderr
from kpipe.lite.tflite_file import parse, serialize

__all__ = ["quantize_to_int8", "refine"]

_MAX_IMAGES = 64
_PROBABILITY_SCALE = 1 / 256


def refine(calibrated: CalibratedModel, images: Sequence[np.ndarray]) -> CalibratedModel:
    """Fit the ranges to some of the images, and measure the mean errors that remain.

    Args:
        calibrated: the model with the ranges of the smallest and largest values.
        images: calibration images, float32 (1, height, width, 3) in [0, 255].
    """
    positions = np.linspace(0, len(images) - 1, min(len(images), _MAX_IMAGES)).round().astype(int)
    sample = [images[position] for position in positions]
    fitted = fit_ranges(calibrated, sample)
    return replace(fitted, mean_errors=measure_mean_errors(fitted, sample))


def quantize_to_int8(
    calibrated: CalibratedModel, in_float: Collection[str] = (), *, io_dtype: str = "uint8"
) -> bytes:
    """Return the content of the int8 file.

    Args:
        calibrated: the model with its ranges, refined or not.
        in_float: output tensors of the operations that stay in float32.
        io_dtype: type of the pixels and the probabilities, "uint8" or "float32".
    """
    content, dtype = correct_biases(calibrated, in_float), tf.as_dtype(io_dtype)
    with quiet_stderr():
        content = mlir_quantize(
            content, denylisted_nodes=[*in_float], input_data_type=dtype, output_data_type=dtype
        )
    parsed = parse(deduplicate_readonly_buffers(content))
    if io_dtype == "uint8":
        _unify_probability_scale(parsed)
    return serialize(parsed)


def _unify_probability_scale(parsed: Any) -> None:
    """Set the output scale of a uint8 file to 1/256, in place.

    Softmax and sigmoid always do; an average of several does not. Its last operation, which
    converts int8 to uint8, then changes the scale too. Outputs below 0 or above 1 are not
    probabilities and keep their scale.
    """
    graph = parsed.subgraphs[0]
    (output,) = graph.outputs
    quantization = graph.tensors[output].quantization
    last = next(o for o in graph.operators if output in o.outputs)
    code = parsed.operatorCodes[last.opcodeIndex].builtinCode
    are_probabilities = quantization.zeroPoint[0] == 0 and 255 * quantization.scale[0] <= 1
    if are_probabilities and code == BuiltinOperator.QUANTIZE:
        quantization.scale[0] = _PROBABILITY_SCALE
