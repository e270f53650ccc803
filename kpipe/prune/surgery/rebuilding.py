"""Rebuild a Keras model from a graph: changed layers, with slices of the old weights.

source layer   get_config, changed            ->  from_config  ->  called as the source was
weights        [indices kept along each axis]  ->  assigned
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kpipe.errors import PruneError
from kpipe.keras_copies import copy_flags, copy_layer, copy_state
from kpipe.prune.dependencies.rules import LayerChange
from kpipe.prune.graph.model_graph import Graph, Operation, Tensor, needed_calls, substituted

__all__ = ["rebuild"]


def rebuild(
    graph: Graph, name: str, changes: Mapping[str, LayerChange], instead: Mapping[int, int]
) -> keras.Model:
    """Build a new model from a graph, with changed layers and replaced tensors.

    Args:
        graph: the graph of the old model.
        name: the name of the new model.
        changes: operation name -> what changes in it; operations that are missing stay the same.
        instead: tensor number -> number of the tensor that replaces it. Operations whose outputs
            are no longer read are left out.
    """
    order = [
        (place, graph.operations[place].calls[use]) for place, use in needed_calls(graph, instead)
    ]

    def change_at(place: int) -> LayerChange:
        return changes.get(graph.operations[place].name, LayerChange())

    built = {
        place: _rebuilt(graph.operations[place], change_at(place))
        for place in sorted({place for place, _ in order})
    }
    tensors: dict[int, Any] = {}

    def fill(x: Any) -> Any:
        return tensors[substituted(x.number, instead)] if isinstance(x, Tensor) else x

    for place, call in order:
        if not call.inputs:  # an InputLayer
            tensors[call.outputs[0]] = built[place].output
            continue
        args, kwargs = call.arguments
        changed = change_at(place).arguments
        args = [changed.get(number, argument) for number, argument in enumerate(args)]
        args, kwargs = keras.tree.map_structure(fill, (args, kwargs))
        made = keras.tree.flatten(built[place](*args, **kwargs))
        tensors |= dict(zip(call.outputs, made, strict=True))
    for place, layer in built.items():
        if isinstance(layer, keras.Layer):
            source, change = graph.operations[place].source, change_at(place)
            weights = _kept_weights(graph.operations[place], layer, change)
            copy_state(source, layer, weights if change.weights else None)
            copy_flags(source, layer)

    inputs, outputs = (
        keras.tree.pack_sequence_as(nested, [tensors[substituted(t, instead)] for t in numbers])
        for nested, numbers in zip(graph.structure, (graph.inputs, graph.outputs), strict=True)
    )
    return keras.Model(inputs, outputs, name=name)


def _rebuilt(operation: Operation, change: LayerChange) -> Any:
    source = operation.source
    config = {**operation.config, **change.config}
    if change.weights:  # weights are copied, and one value per channel would not fit
        config |= {name: "zeros" for name, value in config.items() if _is_per_channel(value)}
        config = _unbuilt(config)
    new = copy_layer(source, PruneError, config)
    new.name = operation.name  # the configuration of some raw operations lacks it
    return new


def _unbuilt(config: Any) -> Any:
    """A configuration whose inner layers are built for the channels that they are called on."""
    if isinstance(config, dict):
        return {k: _unbuilt(value) for k, value in config.items() if k != "build_config"}
    return config


def _is_per_channel(value: Any) -> bool:
    """Whether a setting is an initializer with one value per channel."""
    constant = isinstance(value, dict) and value.get("class_name") == "Constant"
    return constant and np.ndim(value["config"]["value"]) > 0


def _kept_weights(operation: Operation, layer: Any, change: LayerChange) -> list[np.ndarray]:
    """Return the slices of the weights that the rebuilt layer gets."""
    kept = []
    for (name, shape), old, new in zip(
        operation.weights.items(), operation.source.weights, layer.weights, strict=True
    ):
        value = old.numpy()
        for axis, indices in change.weights.get(name, {}).items():
            value = np.take(value, indices, axis=axis)
        if value.shape != tuple(new.shape):
            raise PruneError(
                f"the weight {name!r} of {operation.name!r} does not fit the rebuilt layer",
                expected=f"shape {tuple(new.shape)}",
                received=f"shape {value.shape}, sliced from {shape}",
                fix=f"correct the rule registered for {operation.kind}",
            )
        kept.append(value)
    return kept
