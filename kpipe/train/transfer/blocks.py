"""A model as blocks that training never cuts through.

    steps   model -> one step per use of an operation, in order, nested models opened
    place   a point between two steps; what crosses it is made before and read after
    chain   places that one tensor crosses (inside a net of cells: two or more, all concatenations)
    block   consecutive pieces of the chain that belong together; the last block is the head

A residual addition, a concatenation or a squeeze-and-excite is one piece of the chain, since two
tensors run beside each other inside it. Pieces are joined further by what they are:

    piece                                 joins
    no weights, or a gate                 what is before it
    normalization after a convolution     what is before it
    normalization after a merge           what is after it (pre-activation networks)
    depthwise convolution                 what is after it
    a convolution that narrows            the one before it that widened (inverted bottlenecks)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras

from kpipe.errors import TrainingError

__all__ = ["Block", "LayerCall", "find_blocks", "places", "read_steps"]

_NORMALIZATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
)
_POOLS = (
    keras.layers.Flatten,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
)


@dataclass(frozen=True)
class LayerCall:
    """One use of a layer or raw operation.

    Args:
        operation: what is used.
        reads: numbers of the tensors that it reads.
        makes: numbers of the tensors that it makes.
        tensor: the Keras tensor that it makes; None inside a nested model.
        shapes: of what it reads, then of what it makes, with the batch axis.
    """

    operation: Any
    reads: tuple[int, ...]
    makes: tuple[int, ...]
    tensor: keras.KerasTensor | None
    shapes: tuple[tuple[int | None, ...], ...]

    @property
    def weighted(self) -> bool:
        """Whether it has weights that a training could change."""
        fixed = isinstance(self.operation, keras.layers.Normalization)
        return bool(getattr(self.operation, "weights", ())) and not fixed

    @property
    def channels(self) -> tuple[int, int]:
        """Sizes of the last axis of what it reads first and makes last."""
        return self.shapes[0][-1] or 0, self.shapes[-1][-1] or 0


@dataclass(frozen=True)
class Block:
    """Layers that train together or not at all.

    Args:
        layers: in the order of the model, nested models opened.
        last: the number to give to `unfreeze` so that training starts with this block; 0 is the
            head.
    """

    layers: tuple[keras.layers.Layer, ...]
    last: int


def find_blocks(model: keras.Model) -> tuple[Block, ...]:
    """The blocks of a model in order, its head last.

    Args:
        model: a functional or built Sequential model. Its head begins where its last map is pooled
            or flattened; without that, after the last output of height and width.

    Raises:
        TrainingError: a model without a graph of layers.
    """
    steps = read_steps(model)
    head = _head_start(steps)
    runs = [*_joined(_pieces(steps, head)), steps[head:]]
    blocks: list[Block] = []
    seen: set[int] = set()
    for run in runs:
        layers = {
            id(step.operation): step.operation
            for step in run
            if isinstance(step.operation, keras.layers.Layer) and id(step.operation) not in seen
        }
        seen |= layers.keys()
        blocks.append(Block(tuple(layers.values()), 0))
    lasts = itertools.accumulate(len(block.layers) for block in reversed(blocks[:-1]))
    counted = [Block(b.layers, n) for b, n in zip(reversed(blocks[:-1]), lasts, strict=True)]
    return (*reversed(counted), blocks[-1])


def read_steps(model: keras.Model) -> list[LayerCall]:
    """Every use of an operation, in the order of the graph, nested models opened.

    Raises:
        TrainingError: a subclassed or unbuilt model.
    """
    function = _graph(model)
    if function is None:
        raise TrainingError(
            f"{getattr(model, 'name', model)!r} has no graph of layers to read",
            expected="a functional or built Sequential keras.Model",
            received=type(model).__name__,
            fix="give a Sequential an Input, or build keras.Model(inputs, outputs)",
        )
    return list(_walk(function, {}, itertools.count(), outer=True))


def _graph(model: Any) -> Any:
    """The graph inside a functional or Sequential model; None where there is none."""
    function = model._functional if isinstance(model, keras.Sequential) else model
    own_call = not type(model).call.__module__.startswith("keras.")
    return function if isinstance(function, keras.Function) and not own_call else None


def _walk(
    function: Any, numbers: dict[int, int], counter: Iterator[int], *, outer: bool
) -> Iterator[LayerCall]:
    """The steps of one call; `numbers`: id of a tensor -> its number, filled on the way."""
    for depth in sorted(function._nodes_by_depth, reverse=True):
        for node in function._nodes_by_depth[depth]:
            if node.is_input and not outer:
                continue
            operation = node.operation
            inner = _graph(operation) if isinstance(operation, keras.Model) else None
            if inner is None:
                numbers |= {id(x): next(counter) for x in node.outputs}
                yield LayerCall(
                    operation,
                    tuple(numbers[id(x)] for x in node.input_tensors),
                    tuple(numbers[id(x)] for x in node.outputs),
                    node.outputs[0] if outer else None,
                    tuple(tuple(x.shape) for x in [*node.input_tensors, *node.outputs]),
                )
                continue
            given = zip(inner.inputs, node.input_tensors, strict=True)
            table = {id(x): numbers[id(y)] for x, y in given}
            steps = list(_walk(inner, table, counter, outer=False))
            made = {id(y): table[id(x)] for x, y in zip(inner.outputs, node.outputs, strict=True)}
            numbers |= made
            if outer and steps and len(node.outputs) == 1:
                # The nested model's result is a tensor of the outer model.
                last = max(i for i, s in enumerate(steps) if set(made.values()) & set(s.makes))
                steps[last] = LayerCall(
                    **{**vars(steps[last]), "tensor": node.outputs[0]},
                )
            yield from steps


def places(steps: list[LayerCall]) -> list[tuple[int, ...]]:
    """For each place, the first one before all steps: numbers of the tensors that cross it.

    Empty where an operation that is used on both sides makes the place none.
    """
    ends: dict[int, int] = {}  # tensor -> the last step that reads it
    uses: dict[int, tuple[int, int]] = {}  # operation -> its first and last step
    for index, step in enumerate(steps):
        ends |= dict.fromkeys(step.reads, index)
        first, _ = uses.get(id(step.operation), (index, index))
        uses[id(step.operation)] = (first, index)
    torn = {place for first, last in uses.values() for place in range(first + 1, last + 1)}
    crossing: list[tuple[int, ...]] = [()]
    alive: dict[int, None] = {}
    for index, step in enumerate(steps):
        # What nothing reads is an output of the model, and crosses every later place.
        alive |= dict.fromkeys(step.makes)
        alive = {t: None for t in alive if ends.get(t, len(steps)) > index}
        crossing.append(() if index + 1 in torn else tuple(alive))
    return crossing


def _head_start(steps: list[LayerCall]) -> int:
    crossing = places(steps)
    readers = [number for step in steps for number in step.reads]
    pooled = [
        index
        for index, step in enumerate(steps)
        if isinstance(step.operation, _POOLS)
        and len(step.shapes[0]) == 4
        and crossing[index] == step.reads
        and readers.count(step.reads[0]) == 1  # a squeeze is not the only reader
    ]
    maps = [index + 1 for index, step in enumerate(steps) if len(step.shapes[-1]) == 4]
    return pooled[-1] if pooled else maps[-1] if maps else 0


def _pieces(steps: list[LayerCall], end: int) -> Iterator[list[LayerCall]]:
    """The steps before `end`, cut wherever the graph is a chain."""
    crossing = places(steps)
    kinds = {number: type(step.operation).__name__ for step in steps for number in step.makes}
    single = [0, *(p for p in range(1, end) if len(crossing[p]) == 1), end]
    for first, last in itertools.pairwise(single):
        cells = [
            place
            for place in range(first + 1, last)
            if crossing[place] and all(kinds[t] == "Concatenate" for t in crossing[place])
        ]
        # One such place is a residual block around branches, several are a net of cells.
        cuts = [first, *(cells if len(cells) > 1 else []), last]
        for start, stop in itertools.pairwise(cuts):
            yield steps[start:stop]


def _joined(pieces: Iterator[list[LayerCall]]) -> list[list[LayerCall]]:
    """Pieces of the chain, joined to blocks by the table of the module."""
    blocks: list[list[list[LayerCall]]] = [[]]
    for piece in pieces:
        cores = _cores(blocks[-1])
        if (
            not any(step.weighted for step in piece)
            or _is_gate(piece)
            or not cores
            or _is_depthwise(cores[-1])
            or (_is_normalization(piece) and len(cores[-1]) == 1)
            or (_change(piece) < 0 < _change(cores[-1]))
        ):
            blocks[-1].append(piece)
        else:
            blocks.append([piece])
        # Expansion, depthwise filter, projection: only the last of the three tells what they are.
        inner = _cores(blocks[-1])
        filtered = len(blocks) > 1 and len(inner) > 1 and _is_depthwise(inner[0])
        if filtered and _change(piece) < 0 < _change(_cores(blocks[-2])[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    if len(blocks) > 1 and not _cores(blocks[-1]):
        blocks[-2:] = [blocks[-2] + blocks[-1]]  # the normalization before the head
    return [[step for piece in block for step in piece] for block in blocks if block]


def _cores(block: list[list[LayerCall]]) -> list[list[LayerCall]]:
    """The pieces that a block is about: neither normalization nor gates nor without weights."""
    return [
        piece
        for piece in block
        if any(step.weighted for step in piece)
        and not _is_normalization(piece)
        and not _is_gate(piece)
    ]


def _is_normalization(piece: list[LayerCall]) -> bool:
    return len(piece) == 1 and isinstance(piece[0].operation, _NORMALIZATIONS)


def _is_gate(piece: list[LayerCall]) -> bool:
    return len(piece) > 1 and type(piece[-1].operation).__name__ == "Multiply"


def _is_depthwise(piece: list[LayerCall]) -> bool:
    operation = piece[0].operation
    return len(piece) == 1 and (
        isinstance(operation, keras.layers.DepthwiseConv2D)
        or getattr(operation, "groups", 1) == piece[0].channels[0] > 1
    )


def _change(piece: list[LayerCall]) -> int:
    """By how many channels a single convolution widens what it reads; else 0."""
    if len(piece) > 1 or not piece[0].weighted or _is_depthwise(piece):
        return 0
    before, after = piece[0].channels
    return after - before
