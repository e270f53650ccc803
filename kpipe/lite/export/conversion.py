"""Conversion of a Keras model to the bytes of a `.tflite` file.

    quantize    weights   arithmetic         input              output
    None        float32   float32            float32 [0, 255]   float32 probabilities
    "float16"   float16   float32            float32 [0, 255]   float32 probabilities
    "dynamic"   int8      int8, mostly       float32 [0, 255]   float32 probabilities
    "mixed"     int8      int8, some float   float32 [0, 255]   float32 probabilities
    "int8"      int8      int8               uint8 raw pixels   uint8 q = probability * 256

For "int8", some activations are rewritten (see `activations`), ranges have the least error (see
`ranges`), and biases are corrected for rounding (see `biases`). Outputs that are not probabilities
have the scale that the file states.

"mixed" needs no calibration images: convolutions and dense layers quantize their activations at run
time; depthwise layers, where that costs more time than it saves, dequantize their weights.

The batch size is fixed at 1: with a free batch size, the XNNPACK delegate cannot run the graph in
one piece. An int8 file returns uint8, because its softmax has steps of 1/256 anyway; `LiteModel`
converts them to float32.

The bytes are a function of the weights, the calibration images, and the library versions. Automatic
layer names ("dense_7") would add the history of the process, so layers have canonical names while
they are traced (see `layer_names`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kpipe.errors import ExportError, nearest
from kpipe.finite_weights import refuse_non_finite_weights
from kpipe.lite.export.calibration_images import prepare_calibration_images
from kpipe.lite.export.checks import check_classifier, check_raw_pixels, converter_errors
from kpipe.lite.export.mixed import quantize_mixed
from kpipe.lite.export.tracing import trace
from kpipe.lite.int8.calibrated_model import CalibratedModel
from kpipe.lite.int8.quantizing import quantize_to_int8, refine
from kpipe.lite.int8.ranges import fill_empty_ranges
from kpipe.lite.runtime.interpreter import LiteModel
from kpipe.lite.stderr import quiet_stderr
from kpipe.lite.tflite_file import parse
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["calibrate", "convert"]

_IO_DTYPES = ("uint8", "float32")
_MODES = ("float16", "dynamic", "mixed", "int8")


@names_wrong_kinds
def convert(
    model: keras.Model,
    quantize: str | None = None,
    calibration: Iterable[Any] | None = None,
    *,
    io_dtype: str = "uint8",
) -> bytes:
    """Convert an image classifier to TFLite, with builtin operations only.

    Args:
        model: maps float32 pixels (batch, height, width, 3) in [0, 255] to (batch, classes). Its
            preprocessing is part of the graph.
        quantize: None, "float16", "dynamic", "mixed", or "int8"; see the table above.
        calibration: for "int8", images (height, width, 3) or batches (n, height, width, 3) in
            [0, 255], a few hundred from the training split. Read once and kept in memory.
        io_dtype: for "int8", the type of pixels and probabilities: "uint8", or "float32" for an
            app that has floats. The arithmetic is the same.

    Returns:
        The content of a `.tflite` file with one signature, "serving_default": image ->
        probabilities.

    Raises:
        ExportError: the model is not an image classifier, has weights that are not finite, or uses
            operations that TFLite does not have; or the calibration images are not usable.

    Example:
        >>> import numpy as np
        >>> from keras import Input, Sequential, layers
        >>> from kpipe.lite import LiteModel, convert
        >>> net = Sequential([Input((8, 8, 3)), layers.GlobalAveragePooling2D(), layers.Softmax()])
        >>> images = np.random.default_rng(0).uniform(0, 255, (8, 8, 8, 3))
        >>> LiteModel(convert(net, "int8", images)).input_dtype
        dtype('uint8')
    """
    if quantize is not None and quantize not in _MODES:
        raise ExportError(
            f"unknown quantization {quantize!r}",
            expected="None, " + ", ".join(map(repr, _MODES)),
            fix=nearest(quantize, _MODES),
        )
    if io_dtype not in _IO_DTYPES:
        raise ExportError(
            f"unknown io_dtype {io_dtype!r}",
            expected=", ".join(map(repr, _IO_DTYPES)),
            fix=nearest(io_dtype, _IO_DTYPES),
        )
    if quantize == "mixed":
        return quantize_mixed(convert(model))
    if quantize != "int8":
        content = _convert(model, quantize)
        LiteModel(content)  # raises if LiteRT cannot run it
        return content
    images = prepare_calibration_images(calibration, check_classifier(model))
    with converter_errors(model):
        content = quantize_to_int8(refine(calibrate(model, images), images), io_dtype=io_dtype)
    if io_dtype == "uint8":
        check_raw_pixels(content)
    else:
        LiteModel(content)
    return content


def calibrate(model: keras.Model, images: Sequence[np.ndarray]) -> CalibratedModel:
    """Return the model with the smallest and largest value of each tensor on the images."""
    content = _convert(model, "int8", images)
    parsed = parse(content)
    fill_empty_ranges(parsed)
    return CalibratedModel(content, parsed)


def _convert(model: keras.Model, quantize: str | None, images: Sequence[np.ndarray] = ()) -> bytes:
    """Return the content of the file; for "int8", of a float32 file with calibrated ranges."""
    shape = check_classifier(model)
    refuse_non_finite_weights(model, ExportError)
    with quiet_stderr(), converter_errors(model), warnings.catch_warnings():
        # The converter warns that ranges are missing; calibration adds them later.
        warnings.filterwarnings("ignore", message="Statistics for quantized inputs")
        converter = trace(model, shape, int8=quantize == "int8")
        if quantize is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if quantize == "int8":
            converter.representative_dataset = lambda: ([image] for image in images)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter._experimental_calibrate_only = True
        return bytes(converter.convert())
