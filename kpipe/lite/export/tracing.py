"""A Keras model traced into a TensorFlow graph of batch size 1, ready for the converter."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from kpipe.lite.export.activations import delegable_activations
from kpipe.lite.export.checks import check_no_loops
from kpipe.lite.export.layer_names import with_canonical_names

__all__ = ["trace"]

_LARGE = 30_000_000  # weights


def trace(
    model: keras.Model, shape: tuple[int, int, int], *, int8: bool
) -> tf.lite.TFLiteConverter:
    """Return a converter of the traced model, with the signature image -> probabilities.

    For int8, replace activations that the delegate does not run in int8, and refuse loops.
    """
    # A functional model may have been built on a tensor, or on a list or dict of one.
    structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input

    def call(image: tf.Tensor) -> tf.Tensor:
        return model(keras.tree.pack_sequence_as(structure, [image]), training=False)

    module = tf.Module()
    with ExitStack() as stack:
        stack.enter_context(with_canonical_names(model))
        if int8:
            stack.enter_context(delegable_activations(model))
        # A bare tf.function does not track Keras variables: without an error, the converter would
        # write a file without weights.
        if sum(variable.value.shape.num_elements() for variable in model.weights) > _LARGE:
            module.weights = [variable.value for variable in model.weights]
            module.serve = _function(lambda image: {"probabilities": call(image)}, shape)
            function = module.serve.get_concrete_function()
        else:
            # Constants convert in half the time, but large ones are copied too often.
            function = _function(call, shape).get_concrete_function()
            frozen = convert_variables_to_constants_v2(function)
            module.serve = _function(lambda image: {"probabilities": frozen(image)[0]}, shape)
        served = module.serve.get_concrete_function()
    if int8:
        check_no_loops(function, model)
    return tf.lite.TFLiteConverter.from_concrete_functions([served], module)


def _function(call: Callable[[tf.Tensor], Any], shape: tuple[int, int, int]) -> Any:
    signature = [tf.TensorSpec((1, *shape), tf.float32, name="image")]
    return tf.function(call, input_signature=signature, autograph=False)
