"""The same model in Keras 3 and in tf_keras: rebuilt layer by layer, weights copied by path.

    Keras 3                        tf_keras
    layer of a kind in FIELDS      layer with the same name and settings
    Functional, Sequential         the same, rebuilt inside
    raw operation (x + y, x[1:])   KerasOperation, which calls the operation itself
    Activation that differs        KerasOperation too (such as "hard_sigmoid")
    anything else                  refused, with the reason; see `mapping`

Initializers are left out, since every weight is copied. The graph of a Keras 3 model is replayed by
`kpipe.keras_graph`. That of a tf_keras model has nodes of another kind, which keep arguments and
tensors apart, and only this package may import tf_keras: it is replayed here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
import tf_keras

from kpipe import keras_internals
from kpipe.errors import SparsityError
from kpipe.keras_copies import copy_layer, copy_model, copy_state
from kpipe.keras_graph import find_graph, replay
from kpipe.keras_internals import input_name
from kpipe.sparsity import tf_keras_internals
from kpipe.sparsity.bridge.layers import convert_layer, is_called
from kpipe.sparsity.bridge.mapping import CONTAINERS, leaves, refuse_unmapped
from kpipe.sparsity.bridge.operation import KerasOperation, Slot
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["fuse_normalizations", "to_keras", "to_tf_keras"]


@names_wrong_kinds
def to_tf_keras(model: keras.Model) -> tf_keras.Model:
    """Return the tf_keras twin of a Keras 3 model: same layer names, same weights, same outputs.

    Outputs of most image networks are equal to the bit. Where the two libraries compose an
    operation differently, they are equal up to rounding.

    Args:
        model: a functional or Sequential model; nested and shared layers are kept.

    Raises:
        SparsityError: layers without an equivalent in tf_keras, all of them with their reasons.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from kpipe.sparsity import to_tf_keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="logits")])
        >>> twin = to_tf_keras(model)
        >>> type(twin).__module__, [layer.name for layer in twin.layers]
        ('tf_keras.src.engine.sequential', ['logits'])
        >>> x = np.ones((1, 4), "float32")
        >>> np.array_equal(twin(x), model(x))
        True
    """
    refuse_unmapped(model)
    twin = _Rebuild(tf_keras).model(model)
    _copy_weights(model, twin)
    fuse_normalizations(twin, False)
    return twin


def fuse_normalizations(twin: tf_keras.Model, fused: bool) -> None:
    """Run each BatchNormalization of images as one fused operation, or as several.

    The fused operation trains faster. The several compute what Keras 3 computes: outputs equal to
    the bit, moving mean and variance equal up to rounding. The fused operation rounds differently,
    and its moving variance is that of the population, count / (count - 1) times as large. tf_keras
    neither saves nor clones the choice: a copy of a twin is fused.
    """
    for layer in tf_keras_internals.layers_within(twin):
        if isinstance(layer, tf_keras.layers.BatchNormalization) and tf_keras_internals.may_fuse(
            layer
        ):
            layer.fused = fused


@names_wrong_kinds
def to_keras(model: tf_keras.Model, template: keras.Model | None = None) -> keras.Model:
    """Return a Keras 3 model with the layers and weights of a tf_keras model.

    Args:
        model: a functional or Sequential tf_keras model without TFMOT wrappers.
        template: the Keras 3 model that it came from. Its structure is cloned, initializers and
            regularizers included, and only the weights are taken from `model`, by layer path.

    Raises:
        SparsityError: layers without an equivalent in Keras 3, or weights that do not fit the
            template.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from kpipe.sparsity import to_keras, to_tf_keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> twin = to_tf_keras(model)
        >>> twin.set_weights([np.zeros((4, 2)), np.ones(2)])
        >>> print(to_keras(twin, template=model)(np.ones((1, 4), "float32")).numpy())
        [[1. 1.]]
    """
    if template is not None:
        twin = copy_model(template, SparsityError)
    else:
        refuse_unmapped(model)
        twin = _Rebuild(keras).model(model)
    _copy_weights(model, twin)
    return twin


class _Rebuild:
    """Rebuilds a model in `library`; a layer that is used several times stays one layer."""

    def __init__(self, library: Any) -> None:
        self.library = library
        self._made: dict[int, Any] = {}
        self._calls: Counter[str] = Counter()

    def model(self, source: Any) -> Any:
        if isinstance(source, (keras.Sequential, tf_keras.Sequential)):
            (given,) = source.inputs
            shape, name = _batch_shape(given), _input_names(source)[0]
            layers = [self.layer(layer) for layer in source.layers]
            start = self.library.Input(
                shape[1:], batch_size=shape[0], name=name, dtype=_dtype_name(given)
            )
            return self.library.Sequential([start, *layers], name=source.name)
        starts = [
            self.library.Input(
                _batch_shape(tensor)[1:],
                batch_size=_batch_shape(tensor)[0],
                name=name,
                dtype=_dtype_name(tensor),
            )
            for tensor, name in zip(source.inputs, _input_names(source), strict=True)
        ]
        function = find_graph(source)
        if function is not None:
            structure = keras_internals.input_structure(function)
            outputs = replay(function, starts, self.caller)
        else:
            structure = tf_keras_internals.input_structure(source)
            outputs = _replay_tf_keras(source, starts, self.caller)
        inputs = keras.tree.pack_sequence_as(structure, starts)
        return self.library.Model(inputs, outputs, name=source.name)

    def caller(self, operation: Any) -> Callable[..., Any]:
        """Return what to call in place of `operation`, with the new graph's tensors."""
        if isinstance(operation, KerasOperation):
            again = self.layer(operation)

            def unwrapped(tensors: Any) -> Any:
                args, kwargs = operation.arguments.filled(tensors)
                return again(*args, **kwargs)

            return unwrapped
        if isinstance(operation, keras.Operation) and is_called(operation):
            return lambda *args, **kwargs: self.called(operation, args, kwargs)
        layer = self.layer(operation)
        # Keras 3 records training=False at every layer of a graph, and lets the caller's `training`
        # override it; in tf_keras what the graph records would override the caller's.
        left_out = {"training"} if self.library is tf_keras else set()

        def called(*args: Any, **kwargs: Any) -> Any:
            kept = {k: v for k, v in kwargs.items() if v is not None and k not in left_out}
            return layer(*args, **kept)

        return called

    def called(self, operation: Any, args: Any, kwargs: Any) -> Any:
        """Call a new `KerasOperation`, since each holds the arguments of one call."""
        self._calls[operation.name] += 1
        number = self._calls[operation.name]
        name = operation.name if number == 1 else f"{operation.name}.{number}"
        return KerasOperation.called(operation, args, kwargs, name)

    def layer(self, source: Any) -> Any:
        # An operation that is called several times has one layer for all calls.
        original = source.operation if isinstance(source, KerasOperation) else source
        if id(original) not in self._made:
            if original is not source:
                made = copy_layer(original, SparsityError)
            elif isinstance(source, CONTAINERS):
                made = self.model(source)
            elif isinstance(source, keras.Operation) and is_called(source):
                made = KerasOperation(source, ((Slot(),), {}), name=source.name)
            else:
                made = convert_layer(source, self.library)
            self._made[id(original)] = made
        return self._made[id(original)]


def _replay_tf_keras(model: Any, starts: list[Any], caller: Callable[[Any], Any]) -> Any:
    """Run the calls of a tf_keras model on other tensors, as `replay` does for Keras 3."""
    values = {str(id(old)): new for old, new in zip(model.inputs, starts, strict=True)}
    for node in tf_keras_internals.nodes_in_order(model):
        if node.is_input:
            continue
        # The node takes one tensor from a list for every use of it.
        uses = len(tf.nest.flatten(node.keras_inputs))
        args, kwargs = node.map_arguments({key: [new] * uses for key, new in values.items()})
        made = keras.tree.flatten(caller(node.layer)(*args, **kwargs))
        values |= {str(id(x)): y for x, y in zip(tf.nest.flatten(node.outputs), made, strict=True)}
    structure = tf_keras_internals.output_structure(model)
    return tf.nest.map_structure(lambda old: values[str(id(old))], structure)


def _copy_weights(source: Any, target: Any) -> None:
    given = {path: layer for path, layer in leaves(source) if layer.weights}
    wanted = {path: layer for path, layer in leaves(target) if layer.weights}
    problems = [f"{path} is in one model only" for path in sorted(given.keys() ^ wanted.keys())]
    for path in sorted(given.keys() & wanted.keys()):
        have = [tuple(weight.shape) for weight in given[path].weights]
        need = [tuple(weight.shape) for weight in wanted[path].weights]
        if have != need:
            problems.append(f"{path} has shapes {have} in one model and {need} in the other")
    if problems:
        raise SparsityError(
            f"the weights of {source.name!r} do not fit {target.name!r}: " + "; ".join(problems),
            expected="the same layers with weights of the same shapes",
        )
    for path, layer in wanted.items():
        weights = given[path].get_weights()
        if isinstance(layer, keras.Layer):
            copy_state(layer, layer, weights)
            continue
        layer.set_weights(weights)
        if isinstance(layer, tf_keras.layers.Normalization):
            layer.finalize_state()  # it computes with values derived from its weights


def _batch_shape(tensor: Any) -> tuple[int | None, ...]:
    return tuple(tensor.shape)


def _dtype_name(tensor: Any) -> str:
    return tf.as_dtype(tensor.dtype).name


def _input_names(model: Any) -> list[str]:
    if isinstance(model, keras.Model):
        return [input_name(tensor) for tensor in model.inputs]
    return [tensor.node.layer.name for tensor in model.inputs]
