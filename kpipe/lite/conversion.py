"""A Keras model as the bytes of a `.tflite` file.

    quantize    weights   arithmetic   file's input         file's output
    None        float32   float32      float32 [0, 255]     float32 probabilities
    "float16"   float16   float32      float32 [0, 255]     float32 probabilities
    "dynamic"   int8      mixed        float32 [0, 255]     float32 probabilities
    "int8"      int8      int8         uint8 raw pixels     uint8 probabilities * 256

The batch is fixed at 1: with a free batch the graph falls into many pieces that the XNNPACK
delegate cannot join. An int8 file gives uint8, because its softmax knows no finer step than
1/256 anyway; `LiteModel` turns it back into float32.

Bytes are a function of the weights, the calibration images and the library versions. The only
thing that leaks a process's history into a file is the counter in automatic layer names
("dense_7"), so layers carry the names of a fresh process while they are traced.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.lite.python.convert import ConverterError
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from kpipe.errors import ExportError, nearest
from kpipe.lite.chatter import quiet_stderr
from kpipe.lite.interpreter import LiteModel

__all__ = ["convert"]

_MODES = ("float16", "dynamic", "int8")


def convert(
    model: keras.Model,
    quantize: str | None = None,
    calibration: Iterable[Any] | None = None,
) -> bytes:
    """Convert an image classifier to TFLite, with builtin operations only.

    Args:
        model: one input (batch, height, width, 3), float32 pixels in [0, 255], its preprocessing
            inside; one output (batch, classes).
        quantize: None, "float16", "dynamic" or "int8"; see the table above.
        calibration: for "int8": images (height, width, 3) or batches (n, height, width, 3) in
            [0, 255], a few hundred from the training split. Read once, kept in memory.

    Returns:
        The content of a `.tflite` file with one signature, "serving_default": image ->
        probabilities.

    Raises:
        ExportError: another kind of model, weights that are not finite, an operation that TFLite
            does not have, or no usable calibration images.
    """
    if quantize is not None and quantize not in _MODES:
        raise ExportError(
            f"unknown quantization {quantize!r}",
            expected="None, " + ", ".join(map(repr, _MODES)),
            fix=nearest(str(quantize), _MODES),
        )
    shape = _input_shape(model)
    _refuse_unfinished_weights(model)
    images = _calibration_images(calibration, shape) if quantize == "int8" else []

    with quiet_stderr(), warnings.catch_warnings():
        # Said by the converter of every uint8 input, although the statistics follow later.
        warnings.filterwarnings("ignore", message="Statistics for quantized inputs")
        converter = _converter(model, shape)
        if quantize is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if quantize == "int8":
            converter.representative_dataset = lambda: ([image] for image in images)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = tf.uint8
            converter.inference_output_type = tf.uint8
        try:
            content: bytes = converter.convert()
        except (ConverterError, RuntimeError, ValueError) as error:
            raise _translated(error, model) from error
    if quantize == "int8":
        _refuse_other_than_raw_pixels(content)
    return content


def _converter(model: keras.Model, shape: tuple[int, int, int]) -> tf.lite.TFLiteConverter:
    # A functional model may have been built on a tensor, a list or a dict of one.
    structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input

    def call(image: tf.Tensor) -> tf.Tensor:
        return model(keras.tree.pack_sequence_as(structure, [image]), training=False)

    with _fresh_names(model):
        # Keras variables are not found through a bare tf.function, and the converter then writes
        # a file without weights and says nothing: make them constants first.
        frozen = convert_variables_to_constants_v2(_traced(call, shape).get_concrete_function())

    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        (probabilities,) = frozen(image)
        return {"probabilities": probabilities}

    module = tf.Module()
    module.serve = _traced(serve, shape)
    return tf.lite.TFLiteConverter.from_concrete_functions(
        [module.serve.get_concrete_function()], module
    )


def _traced(function: Callable[[tf.Tensor], Any], shape: tuple[int, int, int]) -> Any:
    signature = [tf.TensorSpec((1, *shape), tf.float32, name="image")]
    return tf.function(function, input_signature=signature, autograph=False)


@contextmanager
def _fresh_names(model: keras.Model) -> Iterator[None]:
    """Automatic layer names counted from the model's first layer, as in a fresh process."""
    layers = list(dict.fromkeys(model._flatten_layers()))
    names = [layer.name for layer in layers]
    counts: dict[str, int] = {}
    try:
        for layer in layers:
            base = re.sub(r"_\d+$", "", layer.name)
            if base.replace("_", "") == type(layer).__name__.lower():
                number = counts[base] = counts.get(base, -1) + 1
                layer.name = f"{base}_{number}" if number else base
        yield
    finally:
        for layer, name in zip(layers, names, strict=True):
            layer.name = name


def _input_shape(model: keras.Model) -> tuple[int, int, int]:
    """(height, width, 3) of a model with one image input and one row of class scores."""
    inputs, outputs = model.inputs, model.outputs
    shapes = [tuple(tensor.shape) for tensor in [*(inputs or []), *(outputs or [])]]
    if (
        len(shapes) != 2
        or len(shapes[0]) != 4
        or None in shapes[0][1:]
        or shapes[0][3] != 3
        or len(shapes[1]) != 2
        or inputs[0].dtype != "float32"
    ):
        raise ExportError(
            f"the model {model.name!r} is not an image classifier of one input and one output",
            expected="float32 (None, height, width, 3) -> (None, classes), all sizes fixed",
            received=f"{[(t.dtype, tuple(t.shape)) for t in inputs or []]} -> "
            f"{[tuple(t.shape) for t in outputs or []]}",
            fix="build it with keras.Input((height, width, 3)) and one output",
        )
    return shapes[0][1:]


def _refuse_unfinished_weights(model: keras.Model) -> None:
    broken = sorted(
        variable.path for variable in model.weights if not np.isfinite(variable.numpy()).all()
    )
    if broken:
        raise ExportError(
            f"the model {model.name!r} has weights that are NaN or infinite: {', '.join(broken)}",
            expected="finite weights",
            fix="train again with a lower learning rate, or load an earlier checkpoint",
        )


def _calibration_images(
    calibration: Iterable[Any] | None, shape: tuple[int, int, int]
) -> list[np.ndarray]:
    """Float32 (1, height, width, 3) each, the first one with a pixel at either end of the range."""
    expected = f"images (height, width, 3) or (n, height, width, 3) of size {shape} in [0, 255]"
    fix = "convert(model, 'int8', calibration=images) with a few hundred training images"
    images: list[np.ndarray] = []
    for position, item in enumerate(calibration if calibration is not None else ()):
        if isinstance(item, (tuple, list, dict)):
            raise ExportError(
                f"calibration item {position} is a {type(item).__name__}, not an array",
                expected=expected,
                fix="leave out the labels: dataset.map(lambda image, label: image)",
            )
        batch = np.asarray(item, np.float32)
        if batch.shape[-3:] != shape or batch.ndim not in (3, 4):
            raise ExportError(
                f"calibration item {position} does not have the model's input size",
                expected=expected,
                received=f"shape {batch.shape}",
                fix="feed what the model was trained on, before any preprocessing of its own",
            )
        if batch.size and not (batch.min() >= 0 and batch.max() <= 255):  # NaN fails both
            raise ExportError(
                f"calibration item {position} leaves the range of pixels",
                expected=expected,
                received=f"values from {batch.min()} to {batch.max()}",
                fix="give raw pixels; the model's own preprocessing scales them",
            )
        images.extend(image[None] for image in batch.reshape(-1, *shape))
    if not images:
        raise ExportError("int8 needs calibration images, and there are none", fix=fix)
    # The range seen at the input becomes its scale. One black and one white pixel make it
    # [0, 255], scale 1 and zero point 0: the phone passes camera bytes without touching them.
    images[0] = images[0].copy()
    images[0][0, 0, 0], images[0][0, -1, -1] = 0.0, 255.0
    return images


def _refuse_other_than_raw_pixels(content: bytes) -> None:
    scale, zero_point = LiteModel(content).input_quantization
    if (scale, zero_point) != (1.0, 0):
        raise ExportError(
            "the int8 file does not take raw pixels",
            expected="uint8 input of scale 1.0 and zero point 0",
            received=f"scale {scale}, zero point {zero_point}",
            fix="let the model's first layer be its preprocessing (keras.layers.Rescaling)",
        )


def _translated(error: Exception, model: keras.Model) -> ExportError:
    text = str(error)
    found = re.findall(r"(?:TF Select|Custom) ops: (.+)", text)
    operations = sorted({name.strip() for names in found for name in names.split(",")})
    if operations:
        return ExportError(
            f"the model {model.name!r} uses operations that TFLite does not have: "
            + ", ".join(operations),
            expected="builtin operations of TFLite only",
            fix="replace the layers that make them",
        )
    return ExportError(
        f"the TFLite converter refused the model {model.name!r}",
        received=text[:2000],
        fix="convert without quantization to see whether the model or its int8 form is refused",
    )
