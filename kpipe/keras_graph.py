"""The graph of a Keras model, read once for pruning, training, export and tf_keras.

    KerasGraph
    |-- calls      one `KerasCall` per use of a layer or raw operation, in the order Keras runs them
    |-- inputs     numbers of the tensors that the model is given
    |-- outputs    numbers of the tensors that the model returns
    |-- structure  how both are nested in lists and dictionaries
    `-- tensors    number -> KerasTensor, for the tensors of the outermost model

`read_graph` opens nested models: their calls stand in the same list, once per call of the model.
`calls_by_model` leaves them closed, and `replay` runs the calls of one model on other tensors.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from kpipe.errors import KpipeError
from kpipe.keras_internals import (
    context_arguments,
    function_of,
    input_structure,
    layers_within,
    nodes_in_order,
    output_structure,
)

__all__ = [
    "KerasCall",
    "KerasGraph",
    "Tensor",
    "calls_by_model",
    "find_graph",
    "read_graph",
    "replay",
    "require_graph",
]


@dataclass(frozen=True)
class Tensor:
    """Placeholder, in a call's arguments, for the tensor of that number."""

    number: int


@dataclass(frozen=True)
class KerasCall:
    """One use of a layer or raw operation.

    Args:
        operation: the Keras object.
        inputs: numbers of the tensors read, in the order of the arguments; none for an InputLayer.
        outputs: numbers of the tensors made.
        arguments: (positional, keyword) arguments, each tensor replaced by a `Tensor`.
        read: the Keras tensors read. Those of a nested model are the ones it was built on, whose
            size may differ from the size it is called on.
        made: the Keras tensors made.
    """

    operation: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    arguments: tuple[Any, Any]
    read: tuple[keras.KerasTensor, ...]
    made: tuple[keras.KerasTensor, ...]


@dataclass(frozen=True)
class KerasGraph:
    """The calls of a model with nested models opened; see the module's docstring."""

    calls: tuple[KerasCall, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    structure: tuple[Any, Any]
    tensors: Mapping[int, keras.KerasTensor]


def find_graph(model: Any) -> keras.Function | None:
    """Return the graph that a model computes, or None.

    A subclassed model, an unbuilt Sequential and a Functional model with its own `call` have none.
    """
    if not isinstance(model, keras.Model):
        return None
    return function_of(model) if type(model).call.__module__.startswith("keras.") else None


def require_graph(model: Any, error: type[KpipeError]) -> keras.Function:
    """Return the graph that a model computes, or raise `error` if it has none."""
    function = find_graph(model)
    if function is None:
        raise error(
            f"{getattr(model, 'name', model)!r} has no graph of layers to read",
            expected="a built Functional or Sequential keras.Model",
            received=type(model).__name__,
            fix="give a Sequential an Input, or rebuild a subclassed model as "
            "keras.Model(inputs, outputs)",
        )
    return function


def read_graph(model: keras.Model, error: type[KpipeError]) -> KerasGraph:
    """Read a Functional or Sequential model, opening nested models.

    Args:
        model: it is not changed.
        error: class of the error to raise.

    Raises:
        KpipeError: a model without a graph, or a call of a nested model that cannot be followed.

    Example:
        >>> import keras
        >>> from kpipe.errors import TrainingError
        >>> from kpipe.keras_graph import read_graph
        >>> inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="inside")])
        >>> pixels = keras.Input((4,), name="pixels")
        >>> model = keras.Model(pixels, keras.layers.Softmax(name="softmax")(inner(pixels)))
        >>> for call in read_graph(model, TrainingError).calls:
        ...     print(call.operation.name, call.inputs, call.outputs)
        pixels () (0,)
        inside (0,) (1,)
        softmax (1,) (2,)
    """
    function = require_graph(model, error)
    counter = itertools.count()
    numbers = {id(tensor): next(counter) for tensor in function.inputs}
    inputs = tuple(numbers.values())
    tensors: dict[int, keras.KerasTensor] = {}
    calls = tuple(_opened(function, numbers, counter, {}, error, tensors))
    return KerasGraph(
        calls,
        inputs,
        tuple(numbers[id(tensor)] for tensor in function.outputs),
        (input_structure(function), output_structure(function)),
        tensors,
    )


def _opened(
    function: keras.Function,
    numbers: dict[int, int],
    counter: Iterator[int],
    context: Mapping[str, Any],
    error: type[KpipeError],
    tensors: dict[int, keras.KerasTensor] | None,
) -> Iterator[KerasCall]:
    """Yield the calls of one model.

    Args:
        function: graph of the model.
        numbers: id of a Keras tensor -> its number, holding the inputs; it is filled. A nested
            model that is called twice is read twice, each time with another table.
        counter: gives the next number.
        context: arguments that the call hands on to every layer inside, such as training=False.
        error: class of the error to raise.
        tensors: number -> Keras tensor, filled; None inside a nested model.
    """

    def placeholder(x: Any) -> Any:
        return Tensor(numbers[id(x)]) if isinstance(x, keras.KerasTensor) else x

    for node in nodes_in_order(function):
        if node.is_input:
            if tensors is None:
                continue
        elif (inner := find_graph(node.operation)) is not None:
            table = {
                id(own): numbers[id(given)]
                for own, given in zip(inner.inputs, _given(inner, node, error), strict=True)
            }
            training = node.arguments.kwargs.get("training")
            handed_on = {**({} if training is None else {"training": training}), **context}
            yield from _opened(inner, table, counter, handed_on, error, None)
            made = [table[id(tensor)] for tensor in inner.outputs]
            numbers |= {id(x): n for x, n in zip(node.outputs, made, strict=True)}
            if tensors is not None and len(made) == 1:
                tensors.setdefault(made[0], node.outputs[0])
            continue
        kwargs = dict(node.arguments.kwargs)
        allowed = context_arguments(node.operation)
        kwargs |= {name: value for name, value in context.items() if name in allowed}
        arguments = keras.tree.map_structure(placeholder, (node.arguments.args, kwargs))
        for tensor in node.outputs:
            if id(tensor) not in numbers:
                numbers[id(tensor)] = next(counter)
        outputs = tuple(numbers[id(tensor)] for tensor in node.outputs)
        if tensors is not None:
            tensors[outputs[0]] = node.outputs[0]
        read, made_here = tuple(node.input_tensors), tuple(node.outputs)
        inputs = tuple(numbers[id(tensor)] for tensor in read)
        yield KerasCall(node.operation, inputs, outputs, arguments, read, made_here)


def _given(inner: keras.Function, node: Any, error: type[KpipeError]) -> list[Any]:
    """Return the tensors that a call of a nested model gives it, in the order of its inputs."""
    struct, (args, kwargs) = input_structure(inner), (node.arguments.args, node.arguments.kwargs)
    named = dict(zip(("inputs", "training", "mask"), args, strict=False)) | kwargs
    if any(mask is not None for mask in keras.tree.flatten(named.get("mask"))):
        raise error(
            f"a call of the nested model {inner.name!r} has a mask argument",
            expected="masks that the layers before it make, such as Masking",
            fix="pass the mask as an input of the model, to the layers inside that read it",
        )
    given = named["inputs"]
    if isinstance(given, dict):  # Keras picks by name and ignores other keys
        names = sorted(struct) if isinstance(struct, dict) else [x.name for x in inner.inputs]
        given = [given[name] for name in names if name in given]
    flat = keras.tree.flatten(given)
    if len(flat) != len(inner.inputs):
        raise error(
            f"a call of the nested model {inner.name!r} cannot be read",
            expected=f"{len(inner.inputs)} tensors",
            received=str([tuple(x.shape) for x in flat]),
            fix="call it with its inputs in their order, or in a dictionary by their names",
        )
    return flat


def calls_by_model(model: keras.Model) -> list[Any]:
    """Return the nodes of a model and of every model inside, each model's by themselves.

    A nested model is one node of the model around it. A layer that other models use too has nodes
    there, which are left out. See `nodes_in_order` for what a node has.
    """
    functions = dict.fromkeys(map(function_of, layers_within(model)))
    return [node for f in functions if f is not None for node in nodes_in_order(f)]


def replay(function: keras.Function, starts: list[Any], caller: Callable[[Any], Any]) -> Any:
    """Run the calls of one model on other tensors, nested models closed.

    Args:
        function: graph of the model.
        starts: what takes the place of its inputs, in their order.
        caller: operation -> what to call in its place, with the arguments of each call.

    Returns:
        The outputs, nested as those of the model.
    """
    values = {id(tensor): start for tensor, start in zip(function.inputs, starts, strict=True)}

    def value(x: Any) -> Any:
        return values[id(x)] if isinstance(x, keras.KerasTensor) else x

    for node in nodes_in_order(function):
        if not node.is_input:
            args, kwargs = keras.tree.map_structure(
                value, (node.arguments.args, node.arguments.kwargs)
            )
            made = keras.tree.flatten(caller(node.operation)(*args, **kwargs))
            values |= {id(x): y for x, y in zip(node.outputs, made, strict=True)}
    outputs = [values[id(tensor)] for tensor in function.outputs]
    return keras.tree.pack_sequence_as(output_structure(function), outputs)
