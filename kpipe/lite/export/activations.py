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

# What the converter merges a following activation into, layers and operations of keras.ops alike.
_MERGING = {
    "Add",
    "AveragePooling2D",
    "BatchNormalization",
    "Conv2D",
    "Conv2DTranspose",
    "Dense",
    "DepthwiseConv2D",
    "MaxPooling2D",
    "Multiply",
    "SeparableConv2D",
    "Subtract",
}
_NOTHING = {"Dropout", "GaussianDropout", "GaussianNoise", "Identity", "SpatialDropout2D"}
_PLAIN = (None, keras.activations.linear)


@contextmanager
def delegable_activations(model: keras.Model) -> Iterator[None]:
    """What is traced within has the same answers, but for rounding.

    Args:
        model: functional or Sequential; models inside are looked into. Afterwards it is as it was.
    """
    nodes = _nodes(model)
    changed: list[tuple[keras.Layer, str, dict[str, Any]]] = []
    try:
        value: Callable[[tf.Tensor], tf.Tensor]
        for layer in dict.fromkeys(model._flatten_layers(include_self=False)):
            if vars(layer).get("activation") is keras.activations.hard_silu:
                name, value = "activation", _hard_silu
            elif (plain := _rectifier(layer)) is not None and _stands_alone(layer, nodes):
                name, value = "call", _after_one(plain)
            else:
                continue
            own = {name: vars(layer)[name]} if name in vars(layer) else {}
            # Past Keras, which would track it as a part of the layer.
            object.__setattr__(layer, name, value)
            changed.append((layer, name, own))
        yield
    finally:
        for layer, name, own in changed:
            if name in own:
                object.__setattr__(layer, name, own[name])
            else:
                object.__delattr__(layer, name)


def _hard_silu(x: tf.Tensor) -> tf.Tensor:
    return x * (tf.nn.relu6(x + _THREE) * np.float32(1 / 6))


def _after_one(plain: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
    return lambda inputs: plain(inputs * _ONE)


def _rectifier(layer: keras.Layer) -> Callable[[tf.Tensor], tf.Tensor] | None:
    """What the layer is, where it is relu or relu6 and nothing else."""
    if type(layer) is keras.layers.Activation:
        if layer.activation is keras.activations.relu:
            return tf.nn.relu
        return tf.nn.relu6 if layer.activation is keras.activations.relu6 else None
    if type(layer) is keras.layers.ReLU and not layer.negative_slope and not layer.threshold:
        return {None: tf.nn.relu, 6: tf.nn.relu6}.get(layer.max_value)
    return None


def _nodes(model: keras.Model) -> list[Any]:
    """The calls of the model and of those inside it; a layer knows those of other models too."""
    parts = [getattr(part, "_functional", None) or part for part in model._flatten_layers()]
    depths = [getattr(part, "_nodes_by_depth", {}) for part in dict.fromkeys(parts)]
    return [node for depth in depths for nodes in depth.values() for node in nodes]


def _stands_alone(layer: keras.Layer, nodes: list[Any]) -> bool:
    """Whether the converter keeps it an operation of its own, somewhere it is called.

    Where a model begins or ends it is not known, and so taken for merged.
    """
    for node in nodes:
        if node.operation is not layer:
            continue
        given = node.input_tensors[0]
        while True:
            history = given._keras_history
            before = history.operation
            if sum(any(t is given for t in other.input_tensors) for other in nodes) > 1:
                return True
            if type(before).__name__ not in _NOTHING:
                break
            given = before._inbound_nodes[history.node_index].input_tensors[0]
        if isinstance(before, keras.Model | keras.layers.InputLayer):
            continue
        merging = type(before).__name__ in _MERGING
        if not merging or getattr(before, "activation", None) not in _PLAIN:
            return True
    return False
