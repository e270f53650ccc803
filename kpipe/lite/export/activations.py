"""Activations rewritten for int8, so that the XNNPACK delegate runs the whole graph in one piece.

    hard swish   x * relu6(x + 3) / 6   as ADD with fused RELU6, MUL, MUL   instead of HARD_SWISH
    relu         relu(x * 1)            as MUL with fused RELU              instead of RELU

The delegate has no int8 kernel for HARD_SWISH, nor for a RELU or RELU6 whose output range differs
from its input range; the converter leaves such a RELU wherever it cannot fuse it into the operation
before. Each of them ends a piece of the graph and runs in a kernel that is several times slower:
MobileNetV3 then takes longer in int8 than in float32. The 3 and the 1 are one rounding step off,
which keeps the converter from restoring the original operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kpipe.keras_graph import calls_by_model
from kpipe.keras_internals import layers_within

__all__ = ["delegable_activations"]

_THREE = np.nextafter(np.float32(3), np.float32(4))
_ONE = np.nextafter(np.float32(1), np.float32(2))

# The converter fuses an activation into these; layers and operations of keras.ops share the names.
_FUSING = {
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
_IDENTITIES = {"Dropout", "GaussianDropout", "GaussianNoise", "Identity", "SpatialDropout2D"}
_LINEAR = (None, keras.activations.linear)


@contextmanager
def delegable_activations(model: keras.Model) -> Iterator[None]:
    """Let a model be traced with activations that the delegate runs in int8.

    Outputs are the same except for rounding. The model is restored afterwards.

    Args:
        model: functional or Sequential; nested models are included.
    """
    nodes = calls_by_model(model)
    changed: list[tuple[keras.Layer, str, dict[str, Any]]] = []
    try:
        value: Callable[[tf.Tensor], tf.Tensor]
        for layer in dict.fromkeys(layers_within(model, include_self=False)):
            if vars(layer).get("activation") is keras.activations.hard_silu:
                name, value = "activation", _hard_silu
            elif (relu := _rectifier(layer)) is not None and _is_unfused(layer, nodes):
                name, value = "call", _after_one(relu)
            else:
                continue
            own = {name: vars(layer)[name]} if name in vars(layer) else {}
            # Past Keras' __setattr__, which would track the value as part of the layer.
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


def _after_one(relu: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
    return lambda inputs: relu(inputs * _ONE)


def _rectifier(layer: keras.Layer) -> Callable[[tf.Tensor], tf.Tensor] | None:
    """Return TensorFlow's relu or relu6 if that is all the layer computes."""
    if type(layer) is keras.layers.Activation:
        if layer.activation is keras.activations.relu:
            return tf.nn.relu
        return tf.nn.relu6 if layer.activation is keras.activations.relu6 else None
    if type(layer) is keras.layers.ReLU and not layer.negative_slope and not layer.threshold:
        return {None: tf.nn.relu, 6: tf.nn.relu6}.get(layer.max_value)
    return None


def _is_unfused(layer: keras.Layer, nodes: list[Any]) -> bool:
    """Return whether, in some call, the converter leaves the activation an operation by itself.

    At the start of a model the operation before is unknown; it is taken to fuse the activation.
    """
    makers = {id(tensor): node for node in nodes for tensor in node.outputs}
    for node in nodes:
        if node.operation is not layer:
            continue
        tensor = node.input_tensors[0]
        while True:
            before = makers[id(tensor)]
            if sum(any(t is tensor for t in other.input_tensors) for other in nodes) > 1:
                return True
            if type(before.operation).__name__ not in _IDENTITIES:
                break
            tensor = before.input_tensors[0]
        maker = before.operation
        if isinstance(maker, keras.Model | keras.layers.InputLayer):
            continue
        fusing = type(maker).__name__ in _FUSING
        if not fusing or getattr(maker, "activation", None) not in _LINEAR:
            return True
    return False
