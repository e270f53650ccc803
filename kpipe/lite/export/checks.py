"""Checks that a model can be converted, and that its file takes raw pixels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from tensorflow.lite.python.convert import ConverterError

from kpipe.errors import ExportError
from kpipe.keras_internals import layers_within
from kpipe.lite.runtime.interpreter import LiteModel

__all__ = ["check_classifier", "check_no_loops", "check_raw_pixels", "converter_errors"]

_LOOPS = {"While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase"}


def check_classifier(model: keras.Model) -> tuple[int, int, int]:
    """Check that a model is a float32 image classifier, and return its (height, width, 3)."""
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
            expected="float32 layers",
            fix="build it with the dtype policy float32, copy the weights, and convert that model",
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
            f"the model {model.name!r} is not an image classifier with one input and one output",
            expected="float32 (None, height, width, 3) -> (None, classes), all sizes fixed",
            received=f"{[(t.dtype, tuple(t.shape)) for t in inputs]} -> "
            f"{[tuple(t.shape) for t in outputs]}",
            fix="build it with keras.Input((height, width, 3)) and one output",
        )
    return shapes[0][1:]


def check_no_loops(function: Any, model: keras.Model) -> None:
    """Refuse loops in a traced function, since calibrating them aborts the process."""
    loops = sorted({o.type for o in function.graph.get_operations()} & _LOOPS)
    if loops:
        raise ExportError(
            f"the model {model.name!r} contains loops or branches: {', '.join(loops)}",
            expected="a graph without them, whose ranges can be calibrated for int8",
            fix='build recurrent layers with unroll=True, or use quantize="dynamic"',
        )


def check_raw_pixels(content: bytes) -> None:
    """Check that an int8 file takes camera bytes as they are."""
    scale, zero_point = LiteModel(content).input_quantization
    if (scale, zero_point) != (1.0, 0):
        raise ExportError(
            "the int8 file does not take raw pixels",
            expected="uint8 input of scale 1.0 and zero point 0",
            received=f"scale {scale}, zero point {zero_point}",
            fix="let the model's first layer be its preprocessing (keras.layers.Rescaling)",
        )


@contextmanager
def converter_errors(model: keras.Model) -> Iterator[None]:
    """Raise errors of the converter and the quantizer as `ExportError`, with the model's name."""
    try:
        yield
    except (ConverterError, RuntimeError, ValueError) as error:
        text = str(error)
        found = re.findall(r"(?:TF Select|Custom) ops: (.+)", text)
        if operations := sorted({name.strip() for names in found for name in names.split(",")}):
            raise ExportError(
                f"the model {model.name!r} uses operations that TFLite does not have: "
                + ", ".join(operations),
                expected="builtin operations of TFLite only",
                fix="replace the layers that use them",
            ) from error
        raise ExportError(
            f"the TFLite converter refused the model {model.name!r}",
            received=text[:2000],
            fix="convert without quantization to see whether the model or its int8 form is refused",
        ) from error
