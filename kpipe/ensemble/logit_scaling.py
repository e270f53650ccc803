"""A Keras classifier with its logits divided by a temperature, inside its graph.

... -> Dense or Conv2D -> (Flatten, Reshape, ...) -> softmax      its kernel and bias / T
anything else, such as an average of probabilities p              p ** (1 / T), normalized
"""

from __future__ import annotations

import math
from typing import Any

import keras

from kpipe.errors import TrainingError
from kpipe.keras_copies import copy_model
from kpipe.keras_graph import KerasCall, read_graph, require_graph
from kpipe.keras_internals import input_structure
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["apply_temperature", "check_probability_model"]

_SHAPING = {"Dropout", "Flatten", "Identity", "Reshape", "Squeeze"}


@names_wrong_kinds
def apply_temperature(model: keras.Model, temperature: float) -> keras.Model:
    """Return a model whose logits are divided by a temperature.

    The predicted classes stay the same. A dense layer or convolution whose outputs go to the final
    softmax has its weights divided, so that the graph stays the same, in int8 files, too. Any other
    model gets operations at its end: `p ** (1 / temperature)`, normalized.

    Args:
        model: a classifier that returns probabilities (batch, classes), each row with a sum of 1.
            It does not change.
        temperature: above 0; more than 1 lowers the confidence.

    Returns:
        A new model with the same input and output, not compiled.

    Raises:
        TrainingError: the model has no graph or does not end in probabilities, or the temperature
            is out of range.

    Example:
        >>> import keras, numpy as np
        >>> from kpipe.ensemble import apply_temperature
        >>> pixels = keras.Input((2,))
        >>> sure = keras.Model(pixels, keras.layers.Softmax()(pixels))
        >>> apply_temperature(sure, 2.0)(np.array([[4.0, 0.0]])).numpy().round(2)
        array([[0.88, 0.12]], dtype=float32)
    """
    if not 0 < temperature < math.inf:
        raise TrainingError(
            "invalid temperature", expected="a number above 0", received=repr(temperature)
        )
    check_probability_model(model)
    copied = copy_model(model, TrainingError)
    layer = _logits_layer(copied)
    if layer is not None:
        for weight in (layer.kernel, layer.bias):
            if weight is not None:
                weight.assign(weight / temperature)
        return copied
    powers = keras.ops.power(copied.outputs[0], 1 / temperature)
    total = keras.ops.sum(powers, axis=-1, keepdims=True)
    structure = input_structure(require_graph(copied, TrainingError))
    inputs = keras.tree.pack_sequence_as(structure, copied.inputs)
    return keras.Model(inputs, keras.ops.divide(powers, total), name=copied.name)


def check_probability_model(model: keras.Model) -> keras.Model:
    """Return a model with a graph whose one output may be probabilities (batch, classes)."""
    require_graph(model, TrainingError)
    shapes = [tuple(tensor.shape) for tensor in model.outputs]
    if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][1] in (None, 1):
        raise TrainingError(
            f"{model.name!r} does not return probabilities of exclusive classes",
            expected="one output (batch, classes), 2 or more classes",
            received=", ".join(map(str, shapes)),
        )
    if (last := _last_calls(model)[0]) and _is_linear_layer(last.operation):
        raise TrainingError(
            f"{model.name!r} ends in logits, not in probabilities",
            expected="a softmax at its end",
            received=f"the layer {last.operation.name!r} without an activation",
            fix="add keras.layers.Softmax()",
        )
    return model


def _logits_layer(model: keras.Model) -> keras.Layer | None:
    """Return the layer whose outputs are the logits of the final softmax and nothing else."""
    calls = _last_calls(model)
    last = calls[0].operation
    if isinstance(last, keras.layers.Dense) and last.activation is keras.activations.softmax:
        layer = last
    elif _is_softmax(last) and len(calls) > 1 and _is_linear_layer(calls[1].operation):
        layer = calls[1].operation
    else:
        return None
    plain = type(layer) in (keras.layers.Dense, keras.layers.Conv2D)
    changed = getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None)
    uses = [call for call in read_graph(model, TrainingError).calls if call.operation is layer]
    return layer if plain and not changed and len(uses) == 1 else None


def _last_calls(model: keras.Model) -> list[KerasCall]:
    """Return the last call and those before it, without layers that only change the shape."""
    graph = read_graph(model, TrainingError)
    makers = {number: call for call in graph.calls for number in call.outputs}
    found, number = [], graph.outputs[0]
    while number in makers:
        call = makers[number]
        linear = isinstance(call.operation, keras.layers.Activation) and _is_linear(call.operation)
        if type(call.operation).__name__ not in _SHAPING and not linear:
            found.append(call)
        if len(call.inputs) != 1:
            break
        (number,) = call.inputs
    return found


def _is_softmax(operation: Any) -> bool:
    if isinstance(operation, keras.layers.Activation):
        return operation.activation is keras.activations.softmax
    return type(operation).__name__ == "Softmax" and operation.axis in (-1, 1)


def _is_linear_layer(operation: Any) -> bool:
    return bool(getattr(operation, "weights", ())) and _is_linear(operation)


def _is_linear(operation: Any) -> bool:
    return getattr(operation, "activation", None) is keras.activations.linear
