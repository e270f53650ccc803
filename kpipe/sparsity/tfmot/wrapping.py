"""Layers of a tf_keras model replaced by TFMOT's wrappers around them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import tf_keras

from kpipe.errors import SparsityError
from kpipe.sparsity.tf_keras_internals import BaseRandomLayer, layers_within

__all__ = ["KERNELS", "refuse_activity_regularizers", "wrap_layers"]

# Layers with enough weights to gain from. Depthwise kernels are small, and lose the most accuracy.
KERNELS = (tf_keras.layers.Conv2D, tf_keras.layers.Dense)


def wrap_layers(
    model: tf_keras.Model, wrap: Callable[[Any], Any | None], seed: int
) -> tuple[tf_keras.Model, list[str]]:
    """Return the model with some layers wrapped, and with random states that can be restored.

    Args:
        model: a tf_keras model; layers of nested models are wrapped too.
        wrap: returns the wrapper of a layer, or None to keep the layer.
        seed: of layers such as Dropout.

    Returns:
        The new model, and the paths of the wrapped layers.
    """
    paths: list[str] = []
    seeds = itertools.count(seed)
    replacements: dict[int, Any] = {}

    def replace(layer: Any, prefix: str) -> Any:
        if id(layer) not in replacements:  # nested models may share a layer
            replacements[id(layer)] = new_layer(layer, prefix)
        return replacements[id(layer)]

    def new_layer(layer: Any, prefix: str) -> Any:
        if isinstance(layer, tf_keras.Model):
            return rebuild(layer, f"{prefix}{layer.name}/")
        if isinstance(layer, BaseRandomLayer):
            restorable = {"seed": next(seeds), "rng_type": "stateful"}
            return type(layer).from_config({**layer.get_config(), **restorable})
        if any(
            isinstance(part, BaseRandomLayer) and getattr(part, "rate", 1)
            for part in layers_within(layer)
        ):
            raise SparsityError(
                f"{prefix}{layer.name} contains dropout, whose state no checkpoint can store",
                fix="build it without dropout, and add a Dropout layer after it",
            )
        if (wrapper := wrap(layer)) is None:
            return layer
        refuse_activity_regularizers([layer])
        paths.append(prefix + layer.name)
        return wrapper

    def rebuild(container: Any, prefix: str) -> Any:
        return tf_keras.models.clone_model(
            container, clone_function=lambda layer: replace(layer, prefix)
        )

    return rebuild(model, ""), paths


def refuse_activity_regularizers(layers: Iterable[Any]) -> None:
    """Raise an error for layers whose added loss TFMOT's wrappers would drop."""
    regularized = [layer.name for layer in layers if getattr(layer, "activity_regularizer", None)]
    if regularized:
        raise SparsityError(
            f"layers that regularize their outputs cannot be wrapped: {', '.join(regularized)}",
            expected="layers without activity_regularizer",
            fix="build the model without it, and copy the weights",
        )
