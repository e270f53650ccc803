"""The graph of a Keras model as plain data, which pruning works on.

Nested models, and models and layers in `TimeDistributed`, are opened so that channels run through
them. The tensors inside a nested model get the sizes that it is called on, not those that it was
built on.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from typing import Any

import keras

from kpipe.errors import PruneError
from kpipe.keras_graph import KerasCall, read_graph
from kpipe.keras_internals import context_arguments
from kpipe.prune.graph.model_graph import (
    Call,
    Graph,
    Operation,
    Shape,
    Tensor,
    kind_of,
    needed_calls,
)
from kpipe.prune.graph.time_distributed import open_time_distributed

__all__ = ["read", "read_operation"]


def read(model: keras.Model) -> Graph:
    """Read a Functional or Sequential model, nested models included.

    Raises:
        PruneError: a subclassed or unbuilt model, two operations of one name, weights shared by
            several layers, a channels-first layer, or a channel axis of unknown size.
    """
    read_model = read_graph(model, PruneError)
    specs = _Specs()
    places: dict[int, int] = {}  # id of the Keras operation -> its place in `sources` and `calls`
    sources: list[Any] = []
    calls: list[list[Call]] = []
    order: list[tuple[int, int]] = []
    opened = open_time_distributed(read_model.calls)
    for call in sorted(opened, key=lambda call: bool(call.inputs)):  # inputs first
        specs.add(call)
        place = places.setdefault(id(call.operation), len(sources))
        if place == len(sources):
            sources.append(call.operation)
            calls.append([])
        shapes = tuple(specs.shapes[number] for number in call.inputs)
        calls[place].append(Call(call.inputs, call.outputs, call.arguments, shapes))
        order.append((place, len(calls[place]) - 1))
    graph = _without_unused(
        Graph(
            tuple(read_operation(*pair) for pair in zip(sources, calls, strict=True)),
            tuple(specs.shapes.get(number, ()) for number in range(max(specs.shapes) + 1)),
            read_model.inputs,
            read_model.outputs,
            read_model.structure,
            tuple(order),
        )
    )
    _refuse(graph)
    return graph


class _Specs:
    """Shape and type of every tensor, at the sizes that nested models are called on."""

    def __init__(self) -> None:
        self.shapes: dict[int, Shape] = {}
        self._dtypes: dict[int, str] = {}

    def add(self, call: KerasCall) -> None:
        """Note what a call makes of tensors that were added before."""
        built_on = [tuple(tensor.shape) for tensor in call.read]
        given = [self.shapes[number] for number in call.inputs]
        if [*map(len, given)] != [*map(len, built_on)]:
            raise PruneError(
                f"a call of the nested model that holds {call.operation.name!r} cannot be read",
                expected=f"tensors of the shapes that it was built on, here {built_on}",
                received=str(given),
                fix="call it with tensors of as many axes as its inputs have",
            )
        made = call.made if given == built_on else self._made_of_other_sizes(call)
        for number, tensor in zip(call.outputs, made, strict=True):
            self.shapes[number] = tuple(tensor.shape)
            self._dtypes[number] = tensor.dtype

    def _made_of_other_sizes(self, call: KerasCall) -> list[Any]:
        def symbol(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            return keras.KerasTensor(self.shapes[x.number], self._dtypes[x.number])

        args, kwargs = keras.tree.map_structure(symbol, call.arguments)
        for name in context_arguments(call.operation):  # `compute_output_spec` does not take them
            kwargs.pop(name, None)
        return keras.tree.flatten(call.operation.compute_output_spec(*args, **kwargs))


def read_operation(source: Any, calls: list[Call]) -> Operation:
    """Read a layer or raw operation and its calls."""
    names: list[str] = []
    weights = getattr(source, "weights", ())
    for weight in weights:
        again = sum(name.partition("#")[0] == weight.name for name in names)
        names.append(f"{weight.name}#{again + 1}" if again else weight.name)
    shapes = (tuple(weight.shape) for weight in weights)
    named = dict(zip(names, shapes, strict=True))
    return Operation(source.name, kind_of(source), _config(source), named, tuple(calls), source)


def _config(source: Any) -> dict[str, Any]:
    try:
        return source.get_config()
    except (NotImplementedError, TypeError) as error:
        raise PruneError(
            f"{source.name!r} ({kind_of(source)}) cannot be rebuilt",
            expected="an operation with get_config()",
            received=str(error).strip().splitlines()[0],
            fix="give its class a get_config() that returns its constructor's arguments",
        ) from error


def _without_unused(graph: Graph) -> Graph:
    """Leave out what no output depends on: unused outputs of nested models."""
    needed = needed_calls(graph, {})
    uses: dict[int, list[int]] = defaultdict(list)
    for place, use in needed:
        uses[place].append(use)
    places = {old: new for new, old in enumerate(sorted(uses))}
    operations = tuple(
        replace(operation, calls=tuple(operation.calls[use] for use in uses[place]))
        for place, operation in enumerate(graph.operations)
        if place in uses
    )
    order = tuple((places[place], uses[place].index(use)) for place, use in needed)
    return replace(graph, operations=operations, order=order)


def _refuse(graph: Graph) -> None:
    """Raise one error that names everything in the graph that cannot be pruned."""
    faults: list[str] = []
    names = Counter(operation.name for operation in graph.operations)
    faults += [
        f"{count} operations are named {name!r}" for name, count in names.items() if count > 1
    ]
    owners: dict[int, set[str]] = defaultdict(set)
    for operation in graph.operations:
        for weight in getattr(operation.source, "weights", ()):
            owners[id(weight)].add(operation.name)
        if operation.config.get("data_format") == "channels_first":
            faults.append(f"{operation.name!r} is channels_first")
        if any(graph.shapes[t][1:][-1:] == (None,) for c in operation.calls for t in c.outputs):
            faults.append(f"{operation.name!r} has a last axis of unknown size")
    shared = sorted({tuple(sorted(names)) for names in owners.values() if len(names) > 1})
    faults += [f"{', '.join(map(repr, names))} share a weight" for names in shared]
    if faults:
        raise PruneError(
            "the model cannot be pruned: " + "; ".join(faults),
            expected="unique names, weights that belong to one layer each, channels on the last "
            "axis, and a known number of channels everywhere",
            fix="rebuild the model accordingly, then copy its weights over",
        )
