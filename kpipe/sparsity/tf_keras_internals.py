"""Every private attribute of tf_keras that kpipe uses, as found in tf_keras 2.21.

    model._nodes_by_depth             the nodes of a model; greater depths run first
    layer._random_generator           the generator of a layer that draws, whose state is a variable

No other file of kpipe may use one; `tests/test_keras_internals.py` names the function to mend when
tf_keras changes an attribute.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf
import tf_keras
from tf_keras.src.applications.convnext import LayerScale
from tf_keras.src.applications.inception_resnet_v2 import CustomScaleLayer
from tf_keras.src.engine.base_layer import BaseRandomLayer
from tf_keras.src.engine.keras_tensor import KerasTensor

__all__ = [
    "BaseRandomLayer",
    "CustomScaleLayer",
    "KerasTensor",
    "LayerScale",
    "generator_of",
    "has_graph",
    "input_structure",
    "layers_within",
    "may_fuse",
    "nodes_in_order",
    "output_structure",
]


def has_graph(model: tf_keras.Model) -> bool:
    """Return whether a model is functional or a built Sequential."""
    return bool(model._is_graph_network)


def nodes_in_order(model: tf_keras.Model) -> Iterator[Any]:
    """Yield the calls of a model in the order in which tf_keras runs them."""
    for depth in sorted(model._nodes_by_depth, reverse=True):
        yield from model._nodes_by_depth[depth]


def input_structure(model: tf_keras.Model) -> Any:
    """Return the inputs of a model as they are nested in lists and dictionaries."""
    return model._nested_inputs


def output_structure(model: tf_keras.Model) -> Any:
    """Return the outputs of a model as they are nested in lists and dictionaries."""
    return model._nested_outputs


def layers_within(layer: tf_keras.layers.Layer) -> list[tf_keras.layers.Layer]:
    """Return a layer or model and all layers inside it, at any depth."""
    return list(layer._flatten_layers())


def generator_of(layer: BaseRandomLayer) -> tf.random.Generator:
    """Return the generator that a layer draws from."""
    return layer._random_generator._generator


def may_fuse(layer: tf_keras.layers.BatchNormalization) -> bool:
    """Return whether `build` found that FusedBatchNorm covers the layer's input."""
    return hasattr(layer, "_data_format")
