"""Activations written for int8, so that the XNNPACK delegate runs the whole graph in one piece.

    hard swish   x * relu6(x + 3) / 6   as ADD with RELU6 inside, MUL, MUL   instead of HARD_SWISH
    relu         relu(x * 1)            as MUL with RELU inside              instead of RELU

The delegate has no int8 kernel for HARD_SWISH, nor for a RELU or RELU6 whose range is not that of
its input, which is any that the converter cannot put into the operation before it. Each of them
ends a piece of the graph and runs in a kernel that is several times slower: with them MobileNetV3
takes longer in int8 than in float32. A 3 and a 1 that are one rounding step off keep the converter
from putting the old operations back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

__all__ = ["delegable_activations"]

_THREE = np.nextafter(np.float32(3), np.float32(4))
_ONE = np.nextafter(np.float32(1), np.float32(2))

# What the converter merges a following activation into.
_MERGING = (
    keras.layers.Add,
    keras.layers.AveragePooling2D,
    keras.layers.BatchNormalization,
    keras.layers.Conv2D,
    keras.layers.Conv2DTranspose,
    keras.layers.Dense,
    keras.layers.DepthwiseConv2D,
    keras.layers.MaxPooling2D,
    keras.layers.Multiply,
    keras.layers.SeparableConv2D,
    keras.layers.Subtract,
)


@contextmanager
def delegable_activations(model: keras.Model) -> Iterator[None]:
    """What is traced within has the same answers, but for rounding.

    Args:
        model: functional or Sequential; models inside are looked into. Afterwards it is as it was.
    """
    changes: list[tuple[keras.Layer, str, Any]] = []
    for layer in dict.fromkeys(model._flatten_layers(include_self=False)):
        if getattr(layer, "activation", None) is keras.activations.hard_silu:
            changes.append((layer, "activation", _hard_silu))
        elif (plain := _rectifier(layer)) is not None and _stands_alone(layer):
            changes.append((layer, "call", _after_one(plain)))
    given = [(layer, name, vars(layer).get(name)) for layer, name, _ in changes]
    try:
        for layer, name, value in changes:
            # Past Keras, which would track it as a part of the layer.
            object.__setattr__(layer, name, value)
        yield
    finally:
        for layer, name, value in given:
            if value is None:
                object.__delattr__(layer, name)
            else:
                object.__setattr__(layer, name, value)


def _hard_silu(x: tf.Tensor) -> tf.Tensor:
    return x * (tf.nn.relu6(x + _THREE) * np.float32(1 / 6))


def _after_one(plain: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
    return lambda x: plain(x * _ONE)


def _rectifier(layer: keras.Layer) -> Callable[[tf.Tensor], tf.Tensor] | None:
    """What the layer is, where it is relu or relu6 and nothing else."""
    if type(layer) is keras.layers.Activation:
        kinds = {keras.activations.relu: tf.nn.relu, keras.activations.relu6: tf.nn.relu6}
        return kinds.get(layer.activation)
    if type(layer) is keras.layers.ReLU and not layer.negative_slope and not layer.threshold:
        return {None: tf.nn.relu, 6: tf.nn.relu6}.get(layer.max_value)
    return None


def _stands_alone(layer: keras.Layer) -> bool:
    """Whether the converter keeps it an operation of its own, somewhere it is called."""
    for node in layer._inbound_nodes:
        before = node.input_tensors[0]._keras_history.operation
        if not isinstance(before, _MERGING) or len(before._outbound_nodes) > 1:
            return True
    return False
