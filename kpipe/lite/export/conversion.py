"""A Keras model as the bytes of a `.tflite` file.

    quantize    weights   arithmetic   file's input         file's output
    None        float32   float32      float32 [0, 255]     float32 probabilities
    "float16"   float16   float32      float32 [0, 255]     float32 probabilities
    "dynamic"   int8      int8, mostly float32 [0, 255]     float32 probabilities
    "mixed"     int8      int8, float  float32 [0, 255]     float32 probabilities
    "int8"      int8      int8         uint8 raw pixels     uint8 probabilities * 256

Answers of an int8 file that are no probabilities have the scale that the file says. Some of its
activations are written otherwise than in the model, its ranges are those of least error, and its
biases take back what rounding shifts; see `activations`, `ranges` and `biases`.

"mixed" is for those without calibration images: weights of convolutions and dense layers meet
activations that are quantized as they come, while depthwise layers, where that costs more time
than it saves, get their weights back as floats (ai-edge-quantizer).

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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.lite.python.convert import ConverterError
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from kpipe.errors import ExportError, nearest
from kpipe.keras_internals import layers_within
from kpipe.lite.export.activations import delegable_activations
from kpipe.lite.export.calibration import calibration_images
from kpipe.lite.export.weight_only import mixed
from kpipe.lite.int8.quantizing import Ranges, quantized, refined
from kpipe.lite.int8.ranges import widened
from kpipe.lite.runtime.interpreter import LiteModel
from kpipe.lite.stderr import quiet_stderr
from kpipe.weights import refuse_non_finite_weights

__all__ = [
    "calibrated",
    "convert",
    "fresh_names",
    "input_shape",
    "refuse_other_than_raw_pixels",
    "said_of",
]

_LARGE = 30_000_000  # weights
_LOOPS = {"While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase"}
_ENDS = ("uint8", "float32")
_MODES = ("float16", "dynamic", "mixed", "int8")


def convert(
    model: keras.Model,
    quantize: str | None = None,
    calibration: Iterable[Any] | None = None,
    *,
    io_dtype: str = "uint8",
) -> bytes:
    """Convert an image classifier to TFLite, with builtin operations only.

    Args:
        model: one input (batch, height, width, 3), float32 pixels in [0, 255], its preprocessing
            inside; one output (batch, classes).
        quantize: None, "float16", "dynamic", "mixed" or "int8"; see the table above.
        calibration: for "int8": images (height, width, 3) or batches (n, height, width, 3) in
            [0, 255], a few hundred from the training split. Read once, kept in memory.
        io_dtype: of an "int8" file: "uint8" pixels in and probabilities out, or "float32" for an
            app that has floats; the arithmetic between is the same.

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
    if io_dtype not in _ENDS:
        raise ExportError(
            f"unknown ends {io_dtype!r}",
            expected=", ".join(map(repr, _ENDS)),
            fix=nearest(str(io_dtype), _ENDS),
        )
    if quantize == "mixed":
        return mixed(convert(model))
    if quantize != "int8":
        content = _converted(model, quantize)
        LiteModel(content)  # which refuses what LiteRT cannot run
        return content
    images = calibration_images(calibration, input_shape(model))
    with said_of(model):
        content = quantized(refined(calibrated(model, images), images), io_dtype=io_dtype)
    if io_dtype == "uint8":
        refuse_other_than_raw_pixels(content)
    else:
        LiteModel(content)
    return content


def calibrated(model: keras.Model, images: list[np.ndarray]) -> Ranges:
    """The least and the largest value of each tensor.

    Args:
        model: as for `convert`.
        images: of `calibration_images`.

    Raises:
        ExportError: as `convert`.
    """
    return Ranges(widened(_converted(model, "int8", images)))


def _converted(
    model: keras.Model, quantize: str | None, images: Sequence[np.ndarray] = ()
) -> bytes:
    """The file; for "int8" that in float with the ranges that the images gave."""
    shape = input_shape(model)
    refuse_non_finite_weights(model, ExportError)
    with quiet_stderr(), said_of(model), warnings.catch_warnings():
        # Said of int8, although the statistics follow later.
        warnings.filterwarnings("ignore", message="Statistics for quantized inputs")
        converter = _converter(model, shape, int8=quantize == "int8")
        if quantize is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if quantize == "int8":
            converter.representative_dataset = lambda: ([image] for image in images)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter._experimental_calibrate_only = True
        return bytes(converter.convert())


@contextmanager
def said_of(model: keras.Model) -> Iterator[None]:
    """What the converter refuses is told with the model's name."""
    try:
        yield
    except (ConverterError, RuntimeError, ValueError) as error:
        raise _translated(error, model) from error


def _converter(
    model: keras.Model, shape: tuple[int, int, int], *, int8: bool
) -> tf.lite.TFLiteConverter:
    # A functional model may have been built on a tensor, a list or a dict of one.
    structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input

    def call(image: tf.Tensor) -> tf.Tensor:
        return model(keras.tree.pack_sequence_as(structure, [image]), training=False)

    module = tf.Module()
    with ExitStack() as traced:
        traced.enter_context(_fresh_names(model))
        if int8:
            traced.enter_context(delegable_activations(model))
        # Keras variables are not found through a bare tf.function, and the converter then writes
        # a file without weights and says nothing.
        if sum(variable.value.shape.num_elements() for variable in model.weights) > _LARGE:
            module.weights = [variable.value for variable in model.weights]
            module.serve = _traced(lambda image: {"probabilities": call(image)}, shape)
            function = module.serve.get_concrete_function()
        else:
            # Constants convert in half the time; of large ones there are too many copies.
            function = _traced(call, shape).get_concrete_function()
            frozen = convert_variables_to_constants_v2(function)
            module.serve = _traced(lambda image: {"probabilities": frozen(image)[0]}, shape)
        served = module.serve.get_concrete_function()
    if int8:
        _refuse_loops(function, model)
    return tf.lite.TFLiteConverter.from_concrete_functions([served], module)


def _refuse_loops(function: Any, model: keras.Model) -> None:
    """Measuring ranges inside of loops ends the process, without a word."""
    found = sorted({o.type for o in function.graph.get_operations()} & _LOOPS)
    if found:
        raise ExportError(
            f"the model {model.name!r} has loops or branches inside: {', '.join(found)}",
            expected="a graph without them, whose ranges can be measured for int8",
            fix='build recurrent layers with unroll=True, or take quantize="dynamic"',
        )


def _traced(function: Callable[[tf.Tensor], Any], shape: tuple[int, int, int]) -> Any:
    signature = [tf.TensorSpec((1, *shape), tf.float32, name="image")]
    return tf.function(function, input_signature=signature, autograph=False)


@contextmanager
def _fresh_names(model: keras.Model) -> Iterator[None]:
    """The layers carry the names of a fresh process while the body runs."""
    named = fresh_names(model)
    own = [layer.name for layer, _ in named]
    try:
        for layer, name in named:
            layer.name = name
        yield
    finally:
        for (layer, _), name in zip(named, own, strict=True):
            layer.name = name


def fresh_names(model: keras.Model) -> list[tuple[keras.Layer, str]]:
    """Every layer with its name, automatic ones counted from the model's first layer."""
    named = []
    counts: dict[str, int] = {}
    for layer in dict.fromkeys(layers_within(model)):
        name, base = layer.name, re.sub(r"_\d+$", "", layer.name)
        if base.replace("_", "") == type(layer).__name__.lower():
            number = counts[base] = counts.get(base, -1) + 1
            name = f"{base}_{number}" if number else base
        named.append((layer, name))
    return named


def input_shape(model: keras.Model) -> tuple[int, int, int]:
    """(height, width, 3) of a model with one image input and one row of class scores.

    Raises:
        ExportError: another kind of model.
    """
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise ExportError(
            "only a built Keras 3 model with a graph converts",
            expected="a functional or Sequential model",
            received=type(model).__name__,
            fix="build it with keras.Input, or call it once",
        )
    half = [
        layer.name
        for layer in layers_within(model, include_self=False)
        if layer.compute_dtype in ("float16", "bfloat16")
    ]
    if half:
        raise ExportError(
            f"layers of {model.name!r} compute in half precision: {', '.join(half)}",
            expected="layers of float32",
            fix="build it under the dtype policy float32, give it the weights, and convert that",
        )
    inputs, outputs = model.inputs, model.outputs
    shapes = [tuple(tensor.shape) for tensor in [*inputs, *outputs]]
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
            received=f"{[(t.dtype, tuple(t.shape)) for t in inputs]} -> "
            f"{[tuple(t.shape) for t in outputs]}",
            fix="build it with keras.Input((height, width, 3)) and one output",
        )
    return shapes[0][1:]


def refuse_other_than_raw_pixels(content: bytes) -> None:
    """Camera bytes go in untouched, so scale and zero point must be at rest."""
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
