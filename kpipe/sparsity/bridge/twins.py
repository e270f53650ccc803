"""The same model in Keras 3 and in tf_keras: rebuilt layer by layer, weights copied by path.

    Keras 3                        tf_keras
    layer of a kind in FIELDS      layer of the same name and settings
    Functional, Sequential         the same, rebuilt inside
    raw operation (x + y, x[1:])   KerasOperation, which calls the operation itself
    Activation of another meaning  KerasOperation, too ("hard_sigmoid" differs between the two)
    anything else                  refused, with the reason; see `mapping`

Initializers are not carried over, since every weight is copied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
import tf_keras
from keras.src.models.functional import Functional

from kpipe.errors import SparsityError
from kpipe.sparsity.bridge.layers import equal, is_raw
from kpipe.sparsity.bridge.mapping import CONTAINERS, leaves, refuse_unequal
from kpipe.sparsity.bridge.operation import KerasOperation, Slot

__all__ = ["fuse_normalizations", "to_keras", "to_tf_keras"]


def to_tf_keras(model: keras.Model) -> tf_keras.Model:
    """The tf_keras twin of a Keras 3 model: same layer names, same weights, same outputs.

    Outputs are equal but for the rounding of operations that the two libraries compose differently;
    those of most networks of images are the same bits.

    Args:
        model: a functional or Sequential model; nested and shared layers are kept.

    Raises:
        SparsityError: layers that have no equal in tf_keras, all of them with their reasons.
    """
    refuse_unequal(model)
    twin = _Rebuild(tf_keras).model(model)
    _copy_weights(model, twin)
    fuse_normalizations(twin, False)
    return twin


def fuse_normalizations(twin: tf_keras.Model, fused: bool) -> None:
    """Whether the BatchNormalizations of images are one operation each, where they can be.

    One operation trains faster. In several they compute what Keras 3 does: outputs are the same
    bits, and moving statistics equal but for rounding. The one rounds outputs otherwise, and its
    moving variance is that of a population (count / (count - 1)). tf_keras neither saves nor clones
    the choice: what it makes of a twin is fused.
    """
    for layer in twin._flatten_layers():
        # tf_keras decides in build(), and leaves the format behind where it may fuse.
        if isinstance(layer, tf_keras.layers.BatchNormalization) and hasattr(layer, "_data_format"):
            layer.fused = fused


def to_keras(model: tf_keras.Model, template: keras.Model | None = None) -> keras.Model:
    """A Keras 3 model with the layers and weights of a tf_keras model.

    Args:
        model: a functional or Sequential tf_keras model without TFMOT wrappers.
        template: the Keras 3 model that it came from. Its structure is cloned, initializers,
            regularizers and all, and only the weights are taken from `model`, by layer path.

    Raises:
        SparsityError: layers that have no equal in Keras 3, or weights that do not fit the
            template.
    """
    if template is not None:
        if not isinstance(template, keras.Model):
            raise SparsityError(
                "the template is no model",
                expected="the Keras 3 model that the other came from",
                received=repr(template),
            )
        twin = _cloned(template, {})
    else:
        refuse_unequal(model)
        twin = _Rebuild(keras).model(model)
    _copy_weights(model, twin)
    return twin


def _cloned(template: keras.Model, made: dict[int, Any]) -> keras.Model:
    """A copy, in which what is shared between models inside stays shared."""

    def clone(layer: Any) -> Any:
        if id(layer) not in made:
            inside = isinstance(layer, (Functional, keras.Sequential))
            made[id(layer)] = (
                _cloned(layer, made) if inside else type(layer).from_config(layer.get_config())
            )
        return made[id(layer)]

    if isinstance(template, keras.Sequential):
        return keras.models.clone_model(template, clone_function=clone)
    # Left to itself, Keras names the new inputs after a counter of the process.
    starts = [
        keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=name)
        for tensor, name in zip(template.inputs, _input_names(template), strict=True)
    ]
    inputs = keras.tree.pack_sequence_as(template.input, starts)
    return keras.models.clone_model(template, input_tensors=inputs, clone_function=clone)


class _Rebuild:
    """One walk over a model, giving each layer one equal in `library`, however often it is used."""

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
        walk = _walk_keras if isinstance(source, keras.Model) else _walk_tf_keras
        starts = [
            self.library.Input(
                _batch_shape(tensor)[1:],
                batch_size=_batch_shape(tensor)[0],
                name=name,
                dtype=_dtype_name(tensor),
            )
            for tensor, name in zip(source.inputs, _input_names(source), strict=True)
        ]
        structure = source._inputs_struct if walk is _walk_keras else source._nested_inputs
        outputs = walk(source, starts, self.caller)
        inputs = keras.tree.pack_sequence_as(structure, starts)
        return self.library.Model(inputs, outputs, name=source.name)

    def caller(self, operation: Any) -> Callable[..., Any]:
        """What to call in place of `operation`, with the new graph's tensors."""
        if isinstance(operation, KerasOperation):
            again = self.layer(operation)

            def unwrapped(tensors: Any) -> Any:
                args, kwargs = operation.arguments.filled(tensors)
                return again(*args, **kwargs)

            return unwrapped
        if isinstance(operation, keras.Operation) and is_raw(operation):
            return lambda *args, **kwargs: self.called(operation, args, kwargs)
        layer = self.layer(operation)
        # Keras 3 notes training=False at every layer of a graph, and lets the caller's `training`
        # override it; in tf_keras what a graph notes would override the caller's.
        noted = {"training"} if self.library is tf_keras else set()

        def called(*args: Any, **kwargs: Any) -> Any:
            told = {k: v for k, v in kwargs.items() if v is not None and k not in noted}
            return layer(*args, **told)

        return called

    def called(self, operation: Any, args: Any, kwargs: Any) -> Any:
        """A `KerasOperation` for each call, since each holds its own arguments."""
        self._calls[operation.name] += 1
        number = self._calls[operation.name]
        name = operation.name if number == 1 else f"{operation.name}.{number}"
        return KerasOperation.called(operation, args, kwargs, name)

    def layer(self, source: Any) -> Any:
        # Of an operation that is called several times, one for all calls.
        original = source.operation if isinstance(source, KerasOperation) else source
        if id(original) not in self._made:
            if original is not source:
                made = _again(original)
            elif isinstance(source, CONTAINERS):
                made = self.model(source)
            elif isinstance(source, keras.Operation) and is_raw(source):
                made = KerasOperation(source, ((Slot(),), {}), name=source.name)
            else:
                made = equal(source, self.library)
            self._made[id(original)] = made
        return self._made[id(original)]


def _again(operation: Any) -> Any:
    """The same Keras 3 operation anew."""
    try:
        return type(operation).from_config(operation.get_config())
    except (TypeError, ValueError, NotImplementedError) as error:
        raise SparsityError(
            f"the operation {operation.name!r} cannot be built again",
            expected="an operation that its configuration describes",
            received=str(error).strip().splitlines()[0][:300],
            fix="give to_keras the Keras 3 model that this one came from: template=",
        ) from error


def _walk_keras(model: Any, starts: list[Any], caller: Callable[[Any], Any]) -> Any:
    return model._run_through_graph(starts, operation_fn=caller)


def _walk_tf_keras(model: Any, starts: list[Any], caller: Callable[[Any], Any]) -> Any:
    values = {str(id(old)): new for old, new in zip(model.inputs, starts, strict=True)}
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.is_input:
                continue
            # The node takes one tensor from a list for every use of it.
            uses = len(tf.nest.flatten(node.keras_inputs))
            args, kwargs = node.map_arguments({key: [new] * uses for key, new in values.items()})
            outputs = caller(node.layer)(*args, **kwargs)
            for old, new in zip(
                tf.nest.flatten(node.outputs), keras.tree.flatten(outputs), strict=True
            ):
                values[str(id(old))] = new
    return tf.nest.map_structure(lambda old: values[str(id(old))], model._nested_outputs)


def _copy_weights(source: Any, target: Any) -> None:
    given = {path: layer for path, layer in leaves(source) if layer.weights}
    wanted = {path: layer for path, layer in leaves(target) if layer.weights}
    problems = [f"{path} is only in the one" for path in sorted(given.keys() ^ wanted.keys())]
    for path in sorted(given.keys() & wanted.keys()):
        have = [tuple(weight.shape) for weight in given[path].weights]
        need = [tuple(weight.shape) for weight in wanted[path].weights]
        if have != need:
            problems.append(f"{path} has shapes {have} in the one and {need} in the other")
    if problems:
        raise SparsityError(
            f"the weights of {source.name!r} do not fit {target.name!r}: " + "; ".join(problems),
            expected="the same layers with weights of the same shapes",
        )
    for path, layer in wanted.items():
        layer.set_weights(given[path].get_weights())
        if isinstance(layer, (keras.layers.Normalization, tf_keras.layers.Normalization)):
            layer.finalize_state()  # it computes with what it derives from its weights


def _batch_shape(tensor: Any) -> tuple[int | None, ...]:
    return tuple(tensor.shape)


def _dtype_name(tensor: Any) -> str:
    return tf.as_dtype(tensor.dtype).name


def _input_names(model: Any) -> list[str]:
    if isinstance(model, keras.Model):
        return [tensor._keras_history.operation.name for tensor in model.inputs]
    return [tensor.node.layer.name for tensor in model.inputs]
