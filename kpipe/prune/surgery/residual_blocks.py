"""Residual blocks of a graph: what can go as a whole, because a shortcut leads past it.

    sum = shortcut + branch        branch := what computes nothing but that summand

A block without its branch gives the shortcut alone. Where the shortcut is a projection, as at the
first block of a stage, the projection stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kpipe.prune.graph.model_graph import Call, Graph, Operation
from kpipe.prune.graph.outlets import readers

__all__ = ["ResidualBlock", "find_residual_blocks"]

_SUMS = ("layers.Add", "ops.Add")
# x + scale * branch, of InceptionResNetV2: the shortcut stands first.
_SCALED_SUMS = ("applications.CustomScaleLayer",)


@dataclass(frozen=True)
class ResidualBlock:
    """A sum and its branch.

    Args:
        name: of the operation that adds the two.
        shortcut: number of the tensor that stays.
        sum: number of the tensor that the addition makes.
        branch: names of the operations that go.
    """

    name: str
    shortcut: int
    sum: int
    branch: tuple[str, ...]


def find_residual_blocks(graph: Graph) -> tuple[ResidualBlock, ...]:
    """The residual blocks of a graph, in its order.

    A sum of two different tensors of equal shape is one where a layer with weights stands on one
    side alone. Of two such sides, the branch is the one of more operations.
    """
    makers = {
        tensor: operation
        for operation in graph.operations
        for call in operation.calls
        for tensor in call.outputs
    }
    read = readers(graph)
    found = []
    for place, use in graph.order:
        operation = graph.operations[place]
        call = operation.calls[use]
        if not _is_sum(graph, operation, call):
            continue
        first, second = call.inputs
        sides = [
            _exclusive(graph, tensor, other, operation, makers, read)
            for tensor, other in ((first, second), (second, first))
        ]
        if operation.kind in _SCALED_SUMS:
            sides[0] = []
        weighted = [sum(bool(step.weights) for step in side) for side in sides]
        if max(weighted) == 0 or len(operation.calls) > 1:
            continue
        branch = weighted.index(max(weighted))
        if weighted[0] == weighted[1]:
            branch = int(len(sides[1]) > len(sides[0]))
        names = tuple(step.name for step in sides[branch])
        found.append(ResidualBlock(operation.name, call.inputs[1 - branch], call.outputs[0], names))
    return tuple(found)


def _is_sum(graph: Graph, operation: Operation, call: Call) -> bool:
    if operation.kind not in (*_SUMS, *_SCALED_SUMS) or len(set(call.inputs)) != 2:
        return False
    shapes = {graph.shapes[tensor] for tensor in (*call.inputs, *call.outputs)}
    return len(shapes) == 1


def _exclusive(
    graph: Graph,
    summand: int,
    other: int,
    addition: Operation,
    makers: Mapping[int, Operation],
    read: Mapping[int, list[Operation]],
) -> list[Operation]:
    """The operations that serve a summand alone, nearest to the sum first."""
    gone = {addition.name}
    found: list[Operation] = []
    waiting = [summand]
    stay = {other, *graph.outputs}
    while True:
        ready = [
            tensor
            for tensor in waiting
            if tensor not in stay
            and all(reader.name in gone for reader in read[tensor])
            and len(makers[tensor].calls) == 1
            and makers[tensor].calls[0].inputs
        ]
        if not ready:
            return found
        for tensor in ready:
            maker = makers[tensor]
            waiting.remove(tensor)
            if maker.name not in gone:
                gone.add(maker.name)
                found.append(maker)
                waiting += [t for t in dict.fromkeys(maker.calls[0].inputs) if t not in waiting]
