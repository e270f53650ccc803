"""Rebuild a Keras model from a graph: changed layers, with slices of the old weights.

source layer   get_config, changed            ->  from_config  ->  called as the source was
weights        [indices kept along each axis]  ->  assigned
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from tempfile import TemporaryDirectory
from typing import Any

import keras
import numpy as np

from kpipe.errors import PruneError
from kpipe.keras_internals import layers_within
from kpipe.prune.dependencies.rules import LayerChange
from kpipe.prune.graph.model_graph import Graph, Operation, Tensor, needed_calls, substituted
from kpipe.prune.surgery.live_objects import referenced

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
        _copy_state(graph.operations[place], layer, change_at(place))

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
    config, live = referenced(config, [source])
    try:
        with keras.saving.custom_object_scope(live):
            new = type(source).from_config(config)
    except (TypeError, ValueError) as error:
        raise PruneError(
            f"{operation.name!r} ({operation.kind}) cannot be rebuilt",
            received=str(error).strip().splitlines()[0][:300],
            fix="give its class matching get_config() and from_config(), and register its custom "
            "functions with keras.saving.register_keras_serializable",
        ) from error
    old, made = (getattr(layer, "activation", None) for layer in (source, new))
    if inspect.isfunction(old) and old is not made:
        raise PruneError(
            f"{operation.name!r} ({operation.kind}) cannot be rebuilt",
            expected=f"the custom activation function {old.__name__!r}",
            received="Keras' function of that name",
            fix=f"pass Keras' function as the string {old.__name__!r}, or decorate yours with "
            "keras.saving.register_keras_serializable()",
        )
    new.name = operation.name  # the configuration of some raw operations lacks it
    return new


def _is_per_channel(value: Any) -> bool:
    """Whether a setting is an initializer with one value per channel."""
    constant = isinstance(value, dict) and value.get("class_name") == "Constant"
    return constant and np.ndim(value["config"]["value"]) > 0


def _copy_state(operation: Operation, layer: Any, change: LayerChange) -> None:
    """Copy the weights, trainable flags and other state of a layer."""
    _copy_weights(operation, layer, change)
    source = operation.source
    if not isinstance(source, keras.layers.Layer):
        return
    for old, new in zip(layers_within(source), layers_within(layer), strict=True):
        new.trainable = old.trainable
        if hasattr(old, "lora_alpha"):  # a rebuilt layer has the rank there
            new.lora_alpha = old.lora_alpha
    for old, new in zip(source.weights, layer.weights, strict=True):
        new.trainable = old.trainable
    if hasattr(source, "save_assets"):  # vocabularies
        with TemporaryDirectory() as folder:
            source.save_assets(folder)
            layer.load_assets(folder)
    if isinstance(layer, keras.layers.Normalization) and layer.built:
        layer.finalize_state()  # it computes with values derived from its weights


def _copy_weights(operation: Operation, layer: Any, change: LayerChange) -> None:
    for (name, shape), old, new in zip(
        operation.weights.items(),
        getattr(operation.source, "weights", ()),
        getattr(layer, "weights", ()),
        strict=True,
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
        new.assign(value)
