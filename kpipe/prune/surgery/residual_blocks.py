"""Find the residual blocks of a graph, whose branches can be removed as a whole.

    sum = shortcut + branch        branch := operations that compute nothing but that summand

Without its branch, a block outputs its shortcut. If the shortcut is a projection, as in the first
block of a stage, the projection stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kpipe.prune.graph.model_graph import Call, Graph, Operation
from kpipe.prune.graph.outlets import readers

__all__ = ["ResidualBlock", "find_residual_blocks"]

_SUMS = ("layers.Add", "ops.Add")
# x + scale * branch, as in InceptionResNetV2: the shortcut comes first.
_SCALED_SUMS = ("applications.CustomScaleLayer",)


@dataclass(frozen=True)
class ResidualBlock:
    """A sum of a shortcut and a branch.

    Args:
        name: the operation that adds the two.
        shortcut: number of the tensor that stays.
        sum: number of the output tensor of the addition.
        branch: names of the operations that can be removed.

    Example:
        >>> import keras
        >>> from kpipe.prune import residual_blocks
        >>> inputs = keras.Input((8, 8, 3))
        >>> branch = keras.layers.Conv2D(3, 3, padding="same", name="conv")(inputs)
        >>> model = keras.Model(inputs, keras.layers.Add(name="sum")([inputs, branch]))
        >>> (block,) = residual_blocks(model)
        >>> block.name, block.branch
        ('sum', ('conv',))
    """

    name: str
    shortcut: int
    sum: int
    branch: tuple[str, ...]


def find_residual_blocks(graph: Graph) -> tuple[ResidualBlock, ...]:
    """Return the residual blocks of a graph, in its order.

    A block is a sum of two different tensors of equal shape, one of which comes through a layer
    with weights that serves it alone. If both do, the branch is the longer side.
    """
    makers = graph.makers()
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
    """The operations that serve one summand alone, nearest to the sum first."""
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
