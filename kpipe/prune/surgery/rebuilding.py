"""A new Keras model from a graph: its layers built again, cut, their weights copied.

source layer   get_config, changed by the cut  ->  from_config  ->  called as the source was
weights        [positions kept of each axis]   ->  assigned
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
from kpipe.prune.dependencies.rules import Cut
from kpipe.prune.graph.model_graph import Graph, Operation, Tensor, needed_calls, substituted

__all__ = ["rebuild"]


def rebuild(
    graph: Graph, name: str, cuts: Mapping[str, Cut], instead: Mapping[int, int]
) -> keras.Model:
    """A new model from a graph: cut, and with other tensors in place of some.

    Args:
        graph: of the old model.
        name: of the new model.
        cuts: operation name -> what changes in it; nothing where it is missing.
        instead: tensor number -> that of the tensor that its readers get. Operations that nothing
            reads any more are left out.
    """
    order = [
        (place, graph.operations[place].calls[use]) for place, use in needed_calls(graph, instead)
    ]
    built = {
        place: _rebuilt(graph.operations[place], cuts.get(graph.operations[place].name, Cut()))
        for place in sorted({place for place, _ in order})
    }
    tensors: dict[int, Any] = {}

    def fill(x: Any) -> Any:
        return tensors[substituted(x.number, instead)] if isinstance(x, Tensor) else x

    for place, call in order:
        if not call.inputs:  # an InputLayer is called by being made
            tensors[call.outputs[0]] = built[place].output
            continue
        args, kwargs = keras.tree.map_structure(fill, call.arguments)
        made = keras.tree.flatten(built[place](*args, **kwargs))
        tensors |= dict(zip(call.outputs, made, strict=True))
    for place, layer in built.items():
        operation = graph.operations[place]
        _copy_state(operation, layer, cuts.get(operation.name, Cut()))

    inputs, outputs = (
        keras.tree.pack_sequence_as(nested, [tensors[substituted(t, instead)] for t in numbers])
        for nested, numbers in zip(graph.structure, (graph.inputs, graph.outputs), strict=True)
    )
    return keras.Model(inputs, outputs, name=name)


def _rebuilt(operation: Operation, cut: Cut) -> Any:
    source = operation.source
    config = {**operation.config, **cut.config}
    if cut.weights:  # every weight is copied, and one value for each channel would not fit
        config |= {name: "zeros" for name, value in config.items() if _is_per_channel(value)}
    try:
        new = type(source).from_config(config)
    except (TypeError, ValueError) as error:
        raise PruneError(
            f"{operation.name!r} ({operation.kind}) cannot be built again",
            received=str(error).strip().splitlines()[0][:300],
            fix="give its class a get_config() and from_config() that agree, and register its own "
            "functions with keras.saving.register_keras_serializable; a Python lambda also needs "
            "keras.config.enable_unsafe_deserialization()",
        ) from error
    old, made = (getattr(layer, "activation", None) for layer in (source, new))
    if inspect.isfunction(old) and old is not made:
        raise PruneError(
            f"{operation.name!r} ({operation.kind}) cannot be built again",
            expected=f"its own activation function {old.__name__!r}",
            received="the one that Keras has of that name",
            fix=f"give Keras' own as the text {old.__name__!r}, or decorate yours with "
            "keras.saving.register_keras_serializable()",
        )
    new.name = operation.name  # raw operations do not all keep it in their configuration
    return new


def _is_per_channel(value: Any) -> bool:
    """Whether a setting is an initializer of a value for each channel."""
    constant = isinstance(value, dict) and value.get("class_name") == "Constant"
    return constant and np.ndim(value["config"]["value"]) > 0


def _copy_state(operation: Operation, layer: Any, cut: Cut) -> None:
    """What a layer has learned, and what of it trains."""
    _copy_weights(operation, layer, cut)
    source = operation.source
    if not isinstance(source, keras.layers.Layer):
        return
    for old, new in zip(layers_within(source), layers_within(layer), strict=True):
        new.trainable = old.trainable
        if hasattr(old, "lora_alpha"):  # built anew, it is the rank
            new.lora_alpha = old.lora_alpha
    for old, new in zip(source.weights, layer.weights, strict=True):
        new.trainable = old.trainable
    if hasattr(source, "save_assets"):  # vocabularies
        with TemporaryDirectory() as folder:
            source.save_assets(folder)
            layer.load_assets(folder)
    if isinstance(layer, keras.layers.Normalization) and layer.built:
        layer.finalize_state()  # what it computes with is derived from its weights


def _copy_weights(operation: Operation, layer: Any, cut: Cut) -> None:
    for (name, shape), old, new in zip(
        operation.weights.items(),
        getattr(operation.source, "weights", ()),
        getattr(layer, "weights", ()),
        strict=True,
    ):
        value = old.numpy()
        for axis, positions in cut.weights.get(name, {}).items():
            value = np.take(value, positions, axis=axis)
        if value.shape != tuple(new.shape):
            raise PruneError(
                f"the weight {name!r} of {operation.name!r} does not fit after the cut",
                expected=f"shape {tuple(new.shape)}",
                received=f"shape {value.shape}, cut from {shape}",
                fix=f"mend the rule registered for {operation.kind}",
            )
        new.assign(value)
