"""Keras' own graph, read as plain data: here and nowhere else.

Models nested in a model are opened: their operations stand in the same list, so that channels run
through them. A nested model has the sizes that it is given, not those that it was built on.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import keras

from kpipe.errors import PruneError
from kpipe.prune.graph.model_graph import (
    Call,
    Graph,
    Operation,
    Shape,
    Tensor,
    kind_of,
    needed_calls,
)

__all__ = ["read"]


def read(model: keras.Model) -> Graph:
    """Reads a Functional or Sequential model, nested models included.

    Raises:
        PruneError: a subclassed or unbuilt model, two operations of one name, weights shared by
            several layers, a channels-first layer, or a channel axis of unknown size.
    """
    function = _function(model) if isinstance(model, keras.Model) else None
    if function is None:
        raise PruneError(
            f"{getattr(model, 'name', model)!r} has no graph of layers to read",
            expected="a built Functional or Sequential keras.Model",
            received=type(model).__name__,
            fix="give a Sequential an Input, or rebuild a subclassed model as "
            "keras.Model(inputs, outputs)",
        )
    reader = _Reader()
    numbers = {id(tensor): reader.number(tensor) for tensor in function.inputs}
    inputs = tuple(numbers.values())
    for operation in function.operations:
        if isinstance(operation, keras.layers.InputLayer):
            reader.record(operation, (), [numbers[id(operation.output)]], ((), {}))
    outputs = reader.walk(function, numbers, {})
    graph = _needed(
        Graph(
            tuple(reader.operation(place) for place in range(len(reader.sources))),
            tuple(reader.shapes),
            inputs,
            tuple(outputs),
            (function._inputs_struct, function._outputs_struct),
            tuple(reader.order),
        )
    )
    _refuse(graph)
    return graph


def _function(model: Any) -> Any:
    """The graph inside a Functional or Sequential model; None where there is none."""
    function = model._functional if isinstance(model, keras.Sequential) else model
    own_call = not type(model).call.__module__.startswith("keras.")
    return function if isinstance(function, keras.Function) and not own_call else None


def _needed(graph: Graph) -> Graph:
    """Without what no output depends on: unused outputs of nested models."""
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


def _handed_in(inner: Any, node: Any) -> list[Any]:
    """The tensors that a call of a nested model gives it, in the order of its inputs."""
    struct, args = inner._inputs_struct, node.arguments.args
    beside = dict(zip(("inputs", "training", "mask"), args, strict=False)) | node.arguments.kwargs
    if any(mask is not None for mask in keras.tree.flatten(beside.get("mask"))):
        raise PruneError(
            f"a call of the nested model {inner.name!r} has a mask of its own",
            expected="masks that the layers before it make, such as Masking",
            fix="hand the mask to the layers inside that read it, as an input of the model",
        )
    given = args[0] if args else node.arguments.kwargs["inputs"]
    if isinstance(given, dict):  # Keras picks by name, and leaves what is too much
        names = sorted(struct) if isinstance(struct, dict) else [x.name for x in inner.inputs]
        given = [given[name] for name in names if name in given]
    flat = keras.tree.flatten(given)
    if [len(x.shape) for x in flat] != [len(x.shape) for x in inner.inputs]:
        raise PruneError(
            f"a call of the nested model {inner.name!r} cannot be read",
            expected=f"{len(inner.inputs)} tensors of the shapes that it was built on",
            received=str([tuple(x.shape) for x in flat]),
            fix="call it with its inputs in their order, or in a dictionary by their names",
        )
    return flat


class _Reader:
    def __init__(self) -> None:
        self.shapes: list[Shape] = []
        self.dtypes: list[str] = []
        self.sources: list[Any] = []
        self.calls: list[list[Call]] = []
        self.places: dict[int, int] = {}  # id of the Keras operation -> its place in `sources`
        self.order: list[tuple[int, int]] = []

    def number(self, tensor: Any) -> int:
        self.shapes.append(tuple(tensor.shape))
        self.dtypes.append(tensor.dtype)
        return len(self.shapes) - 1

    def record(
        self, source: Any, inputs: Iterable[int], outputs: Iterable[int], arguments: Any
    ) -> None:
        if id(source) not in self.places:
            self.places[id(source)] = len(self.sources)
            self.sources.append(source)
            self.calls.append([])
        place = self.places[id(source)]
        self.calls[place].append(Call(tuple(inputs), tuple(outputs), arguments))
        self.order.append((place, len(self.calls[place]) - 1))

    def walk(self, function: Any, numbers: dict[int, int], context: Mapping[str, Any]) -> list[int]:
        """Reads one call of a model; returns the numbers of the tensors it returns.

        Args:
            function: the model's graph.
            numbers: id of a Keras tensor -> its number, holding the inputs at the start. A nested
                model called twice is walked twice, each time with a table of its own.
            context: what the call hands on to every layer inside, such as training=False.
        """

        def place(x: Any) -> Any:
            return Tensor(numbers[id(x)]) if isinstance(x, keras.KerasTensor) else x

        for depth in sorted(function._nodes_by_depth, reverse=True):
            for node in function._nodes_by_depth[depth]:
                if node.is_input:
                    continue
                source, given = node.operation, [numbers[id(x)] for x in node.input_tensors]
                built_on = [tuple(x.shape) for x in node.input_tensors]
                other = [self.shapes[n] for n in given] != built_on
                kwargs = dict(node.arguments.kwargs)
                inner = _function(source) if isinstance(source, keras.Model) else None
                if inner is not None:
                    own = {k: v for k, v in kwargs.items() if k == "training" and v is not None}
                    table = {
                        id(x): numbers[id(y)]
                        for x, y in zip(inner.inputs, _handed_in(inner, node), strict=True)
                    }
                    made = self.walk(inner, table, {**own, **context})
                else:
                    allowed = getattr(source, "_call_context_args", ())
                    kwargs |= {k: v for k, v in context.items() if k in allowed}
                    arguments = keras.tree.map_structure(place, (node.arguments.args, kwargs))
                    made = [
                        self.number(x)
                        for x in (self.again(source, arguments) if other else node.outputs)
                    ]
                    self.record(source, given, made, arguments)
                numbers |= {id(x): n for x, n in zip(node.outputs, made, strict=True)}
        return [numbers[id(x)] for x in function.outputs]

    def again(self, source: Any, arguments: Any) -> list[Any]:
        """What a layer of a nested model makes of a tensor of another size than it was built on."""

        def symbol(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            return keras.KerasTensor(self.shapes[x.number], self.dtypes[x.number])

        args, kwargs = keras.tree.map_structure(symbol, arguments)
        for name in getattr(source, "_call_context_args", ()):  # no argument of a shape
            kwargs.pop(name, None)
        return keras.tree.flatten(source.compute_output_spec(*args, **kwargs))

    def operation(self, place: int) -> Operation:
        source = self.sources[place]
        names: list[str] = []
        for weight in getattr(source, "weights", ()):
            again = sum(name.partition("#")[0] == weight.name for name in names)
            names.append(f"{weight.name}#{again + 1}" if again else weight.name)
        shapes = (tuple(weight.shape) for weight in getattr(source, "weights", ()))
        return Operation(
            source.name,
            kind_of(source),
            _config(source),
            dict(zip(names, shapes, strict=True)),
            tuple(self.calls[place]),
            source,
        )


def _config(source: Any) -> dict[str, Any]:
    try:
        return source.get_config()
    except (NotImplementedError, TypeError) as error:
        raise PruneError(
            f"{source.name!r} ({kind_of(source)}) cannot be built again",
            expected="an operation with get_config()",
            received=str(error).strip().splitlines()[0],
            fix="give its class a get_config() that returns its constructor's arguments",
        ) from error


def _refuse(graph: Graph) -> None:
    """Raises one error that names everything in the graph that cannot be cut."""
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
            "the model cannot be cut: " + "; ".join(faults),
            expected="unique names, weights of one layer each, channels on the last axis, "
            "and a known number of channels everywhere",
            fix="rebuild the model so, then copy its weights over",
        )
