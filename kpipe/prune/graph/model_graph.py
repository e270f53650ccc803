"""A Keras model as plain data: operations, their calls, and the tensors between them.

    Graph
    |-- operations   one `Operation` per layer or raw operation: name, kind, config, weights
    |     `-- calls  one `Call` per use: numbers of the tensors read, numbers of the tensors made
    |-- shapes       tensor number -> shape with the batch axis, (None, height, width, channels)
    |-- inputs       numbers of the tensors that the model is given
    |-- outputs      numbers of the tensors that the model returns
    |-- structure    how both are nested in lists and dictionaries
    `-- order        (index of the operation, index of its call), inputs first

`kpipe.prune.graph.graph_reading` builds it from a Keras model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from kpipe.keras_graph import Tensor
from kpipe.keras_internals import public_module
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["Call", "Graph", "Operation", "Tensor", "kind_of", "needed_calls", "substituted"]

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Call:
    """One use of an operation.

    Args:
        inputs: numbers of the tensors read, in the order of the arguments.
        outputs: numbers of the tensors made.
        arguments: (positional, keyword) arguments, each tensor replaced by a `Tensor`.
        input_shapes: of the tensors read, with the batch axis.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    arguments: tuple[Any, Any]
    input_shapes: tuple[Shape, ...]

    def constants(self) -> list[Any]:
        """Return the arguments that are not tensors: numbers, arrays, text."""
        return [x for x in keras.tree.flatten(self.arguments) if not isinstance(x, Tensor)]


@dataclass(frozen=True)
class Operation:
    """A layer or raw operation.

    Args:
        name: unique in the graph.
        kind: what rules are registered for, see `kind_of`.
        config: result of its `get_config`.
        weights: weight name -> shape, in the layer's order.
        calls: its uses, in the order of the graph.
        source: the Keras object, which only the surgery and the criteria touch.
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    weights: Mapping[str, tuple[int, ...]]
    calls: tuple[Call, ...]
    source: Any


@dataclass(frozen=True)
class Graph:
    """A model as plain data; see the module's docstring."""

    operations: tuple[Operation, ...]
    shapes: tuple[Shape, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    structure: tuple[Any, Any]
    order: tuple[tuple[int, int], ...]

    def channels(self, tensor: int) -> int:
        """Return the size of the last axis; 1 for a tensor with only a batch axis."""
        shape = self.shapes[tensor]
        return shape[-1] or 0 if len(shape) > 1 else 1

    def makers(self) -> dict[int, Operation]:
        """Map the number of each tensor to the operation that makes it."""
        return {t: op for op in self.operations for call in op.calls for t in call.outputs}

    def find(self, names: Iterable[str]) -> list[Operation]:
        """Return the operations of these names, all of which must exist."""
        known = {operation.name: operation for operation in self.operations}
        return [known[name] for name in names]


def needed_calls(graph: Graph, instead: Mapping[int, int]) -> list[tuple[int, int]]:
    """Return the calls that the outputs depend on, and the inputs, in order.

    Args:
        graph: of a model.
        instead: tensor number -> number of the tensor that its readers get in its place.

    Returns:
        (index of the operation, index of its call), as in `Graph.order`.
    """
    needed = {substituted(tensor, instead) for tensor in graph.outputs} | set(graph.inputs)
    order = []
    for place, use in reversed(graph.order):
        call = graph.operations[place].calls[use]
        if needed & set(call.outputs):
            order.append((place, use))
            needed |= {substituted(tensor, instead) for tensor in call.inputs}
    return order[::-1]


def substituted(tensor: int, instead: Mapping[int, int]) -> int:
    """Return the tensor that readers of `tensor` get."""
    while tensor in instead:
        tensor = instead[tensor]
    return tensor


@names_wrong_kinds
def kind_of(thing: Any) -> str:
    """Return the kind of a layer, operation or class, for which rules are registered.

    A subclass is another kind than its base class: what it adds is unknown.

    Example:
        >>> import keras
        >>> from kpipe.prune import kind_of
        >>> kind_of(keras.layers.Conv2D(8, 3))
        'layers.Conv2D'
    """
    cls = thing if isinstance(thing, type) else type(thing)
    return f"{public_module(cls)}.{cls.__qualname__}"
