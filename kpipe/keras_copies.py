"""Copies of Keras models, layers and their state.

    copy   := the same calls of new layers, on inputs of the same or another size, with their state
    state  := weights, and what a layer derives from them or keeps beside them

A Normalization computes with constants that it derives from its weights, and a StringLookup keeps a
table that is not a weight. `set_weights` changes neither; Keras' loading from a file does both. So
`copy_state` passes the state from layer to layer by the methods that write and read files.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from tempfile import TemporaryDirectory
from typing import Any

import keras
import numpy as np

from kpipe.errors import KpipeError
from kpipe.keras_graph import find_graph, replay, require_graph
from kpipe.keras_internals import (
    context_arguments,
    input_name,
    input_structure,
    layers_within,
    set_context_arguments,
    trusted_deserialization,
)
from kpipe.live_objects import referenced

__all__ = ["copy_flags", "copy_layer", "copy_model", "copy_state"]

Shape = tuple[int | None, ...]


def copy_model(
    model: keras.Model,
    error: type[KpipeError],
    *,
    name: str | None = None,
    input_shapes: Sequence[Shape] | None = None,
) -> keras.Model:
    """Return a copy that is not compiled and shares nothing with the model.

    Nested models stay nested, and layers that are used several times stay one layer. Custom layers
    and functions need not be registered.

    Args:
        model: a functional or built Sequential model. It does not change.
        error: class of the error to raise.
        name: of the copy; None for the name of the model.
        input_shapes: for each input, its shape with the batch axis; None for the same shapes.
            Inputs of nested models follow.

    Raises:
        KpipeError: a model without a graph, or a layer that cannot be copied.
        ValueError: a layer does not accept the shapes of its inputs, or has other weights for them.

    Example:
        >>> import keras, numpy as np
        >>> from kpipe.errors import TrainingError
        >>> from kpipe.keras_copies import copy_model
        >>> norm = keras.layers.Normalization()
        >>> norm.adapt(np.array([[0.0], [4.0]]))
        >>> model = keras.Sequential([keras.Input((1,)), norm])
        >>> copy_model(model, TrainingError)(np.array([[4.0]])).numpy()
        array([[1.]], dtype=float32)
    """
    copier = _Copier(error)
    copied = copier.model(model, input_shapes, name)
    for old, new in copier.leaves():
        shapes = [[tuple(weight.shape) for weight in layer.weights] for layer in (old, new)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"{old.name}: weights of the shapes {shapes[0]} -> {shapes[1]}")
        copy_state(old, new)
        copy_flags(old, new)
        for variable, value in zip(new.variables, old.variables, strict=True):
            variable.assign(value)  # seeds too
    return copied


class _Copier:
    """Copies operations once, whatever the number of their calls."""

    def __init__(self, error: type[KpipeError]) -> None:
        self._error = error
        self._made: dict[int, tuple[Any, Any]] = {}

    def leaves(self) -> list[tuple[keras.Layer, keras.Layer]]:
        """Return pairs (layer, copy) of all layers but models that were copied call by call."""
        pairs = self._made.values()
        return [pair for pair in pairs if isinstance(pair[0], keras.Layer) and not _opened(pair[0])]

    def model(
        self, source: keras.Model, shapes: Sequence[Shape] | None = None, name: str | None = None
    ) -> keras.Model:
        function = require_graph(source, self._error)
        starts = [
            keras.Input(batch_shape=shape, dtype=tensor.dtype, name=input_name(tensor))
            for tensor, shape in zip(
                function.inputs, shapes or [x.shape for x in function.inputs], strict=True
            )
        ]
        if isinstance(source, keras.Sequential):
            layers: list[Any] = []
            for layer in source.layers:
                nested = _opened(layer) and layers
                given = keras.Sequential([starts[0], *layers]).outputs if nested else starts
                layers.append(self._copied(layer, given))
            return keras.Sequential([starts[0], *layers], name=name or source.name)
        outputs = replay(function, starts, self._caller)
        inputs = keras.tree.pack_sequence_as(input_structure(function), starts)
        return keras.Model(inputs, outputs, name=name or source.name)

    def _caller(self, operation: Any) -> Callable[..., Any]:
        if not _opened(operation):
            return self._copied(operation)

        def called(*args: Any, **kwargs: Any) -> Any:
            given = keras.tree.flatten(args[0] if args else kwargs["inputs"])
            return self._copied(operation, given)(*args, **kwargs)

        return called

    def _copied(self, operation: Any, given: Sequence[Any] = ()) -> Any:
        """Return the copy of an operation.

        Args:
            operation: a layer, model or raw operation.
            given: the tensors that a nested model is called on.
        """
        if id(operation) not in self._made:
            if _opened(operation):
                made = self.model(operation, _sizes(operation, given))
            else:
                made = copy_layer(operation, self._error)
            self._made[id(operation)] = operation, made
        return self._made[id(operation)][1]


def _opened(operation: Any) -> bool:
    return find_graph(operation) is not None


def _sizes(model: keras.Model, given: Sequence[Any]) -> list[Shape] | None:
    """Return the shapes of a nested model's inputs, at the sizes of the tensors it is called on."""
    inputs = find_graph(model).inputs  # type: ignore[union-attr]
    if len(inputs) != len(given) or any(
        len(x.shape) != len(tensor.shape) for x, tensor in zip(inputs, given, strict=True)
    ):
        return None
    return [
        tuple(None if a is None else b for a, b in zip(x.shape, tensor.shape, strict=True))
        for x, tensor in zip(inputs, given, strict=True)
    ]


def copy_layer(
    layer: Any, error: type[KpipeError], config: Mapping[str, Any] | None = None
) -> keras.Operation:
    """Return a new layer or raw operation of the same class, without state.

    Custom classes and functions of the layer, such as a Lambda's, need not be registered: the new
    layer uses the same ones.

    Args:
        layer: it does not change.
        error: class of the error to raise.
        config: its configuration with changes; None for its own.

    Raises:
        KpipeError: the configuration does not describe the layer.

    Example:
        >>> import keras
        >>> from kpipe.errors import PruneError
        >>> from kpipe.keras_copies import copy_layer
        >>> scale = keras.layers.Lambda(lambda pixels: pixels / 255)
        >>> copy_layer(scale, PruneError).function is scale.function
        True
    """
    within = layers_within(layer) if isinstance(layer, keras.Layer) else [layer]
    try:
        terms = [_terms(part) for part in within]
        known: dict[str, Any] = {
            type(part).__name__: type(part) for part in within if _is_custom(type(part))
        }
        for value in (value for of_part in terms for value in of_part.values()):
            custom = value if inspect.isfunction(value) else type(value)
            if _is_custom(custom):
                known[custom.__name__] = custom
        given, live = referenced(dict(layer.get_config() if config is None else config), within)
        with keras.saving.custom_object_scope({**known, **live}), trusted_deserialization():
            new = type(layer).from_config(given)
    except Exception as problem:  # of the constructor of a custom class
        raise error(
            f"{layer.name!r} ({type(layer).__name__}) cannot be copied",
            expected="a class whose get_config() and from_config() match",
            received=(str(problem).strip() or type(problem).__name__).splitlines()[0][:300],
            fix="return every argument of the constructor from get_config(), and decorate the "
            "class with keras.saving.register_keras_serializable()",
        ) from problem
    copies = layers_within(new) if isinstance(new, keras.Layer) else [new]
    # A function read from a configuration has lost what it refers to, or is Keras' of that name.
    for part, copied, functions in zip(within, copies, terms, strict=False):
        if type(part) is type(copied) and part.name == copied.name:
            for name, value in functions.items():
                if inspect.isfunction(value) and getattr(copied, name, value) is not value:
                    setattr(copied, name, value)
    return new


def _terms(part: Any) -> dict[str, Any]:
    """Return the functions, regularizers and other objects that a layer was made with."""
    with contextlib.suppress(NotImplementedError):
        names = [name for key in part.get_config() for name in (key, f"_{key}")]
        return {name: vars(part)[name] for name in names if callable(vars(part).get(name))}
    return {}


def _is_custom(thing: Any) -> bool:
    return not getattr(thing, "__module__", "").startswith(("keras.", "builtins"))


def copy_state(
    source: keras.Layer, target: keras.Layer, weights: Sequence[np.ndarray] | None = None
) -> None:
    """Give a layer or model the state of another, or derive its state from new weights.

    Seeds and trainable flags do not change.

    Args:
        source: it does not change, unless it is `target`.
        target: built, with the same layers inside; may be `source`, to renew what its layers derive
            from their weights.
        weights: what to set instead of the source's weights.

    Example:
        >>> import keras, numpy as np
        >>> from kpipe.keras_copies import copy_state
        >>> old, new = keras.layers.Normalization(), keras.layers.Normalization()
        >>> old.adapt(np.array([[0.0], [4.0]]))
        >>> new.build((None, 1))
        >>> copy_state(old, new)
        >>> new(np.array([[4.0]])).numpy()
        array([[1.]], dtype=float32)
    """
    values = [w.numpy() for w in source.weights] if weights is None else weights
    if weights is not None:
        _assign(target, values)
    for old, new in zip(layers_within(source), layers_within(target), strict=True):
        store: dict[str, Any] = {}
        (old if weights is None else new).save_own_variables(store)
        new.load_own_variables({k: keras.ops.convert_to_numpy(v) for k, v in store.items()})
        if hasattr(old, "save_assets") and old is not new:  # vocabularies
            with TemporaryDirectory() as folder:
                old.save_assets(folder)
                new.load_assets(folder)
    _assign(target, values)  # saving a layer with LoRA merges its weights


def _assign(layer: keras.Layer, values: Sequence[Any]) -> None:
    for variable, value in zip(layer.weights, values, strict=True):
        variable.assign(value)


def copy_flags(source: keras.Layer, target: keras.Layer) -> None:
    """Copy what training needs: trainable flags, arguments that callers hand on, LoRA's scale.

    Example:
        >>> import keras
        >>> from kpipe.keras_copies import copy_flags
        >>> old, new = (keras.layers.Dense(2, trainable=flag) for flag in (False, True))
        >>> copy_flags(old, new)
        >>> new.trainable
        False
    """
    for old, new in zip(layers_within(source), layers_within(target), strict=True):
        new.trainable = old.trainable
        set_context_arguments(new, context_arguments(old))
        if hasattr(old, "lora_alpha"):  # a rebuilt layer has the rank there
            new.lora_alpha = old.lora_alpha
    for old, new in zip(source.weights, target.weights, strict=True):
        new.trainable = old.trainable
