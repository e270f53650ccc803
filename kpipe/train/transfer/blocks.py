"""The blocks of a model, which training freezes and unfreezes as a whole.

    calls   model -> one `OperationCall` per use of an operation, in order, nested models opened
    place   a point between two calls; a tensor made before and read after it crosses the place
    chain   places that one tensor crosses (inside a net of cells: two or more, all concatenations)
    block   consecutive pieces of the chain that belong together; the last block is the head

A residual addition, a concatenation or a squeeze-and-excite is one piece of the chain, since two
tensors run in parallel inside it. Pieces are joined further by their kind:

    piece                                 joins
    no weights, or a gate                 the piece before it
    normalization after a convolution     the piece before it
    normalization after a merge           the piece after it (pre-activation networks)
    depthwise convolution                 the piece after it
    a convolution that narrows            the one before it that widened (inverted bottlenecks)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras

from kpipe.errors import TrainingError
from kpipe.keras_graph import read_graph
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["Block", "OperationCall", "find_blocks", "places", "read_calls"]

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
class OperationCall:
    """One use of a layer or raw operation.

    Args:
        operation: the Keras object.
        reads: numbers of the tensors that it reads.
        makes: numbers of the tensors that it makes.
        tensor: the Keras tensor that it makes; None inside a nested model, except for its result.
        shapes: of the tensors read, then of the tensors made, with the batch axis.
    """

    operation: Any
    reads: tuple[int, ...]
    makes: tuple[int, ...]
    tensor: keras.KerasTensor | None
    shapes: tuple[tuple[int | None, ...], ...]

    @property
    def weighted(self) -> bool:
        """Whether it has weights that training could change."""
        fixed = isinstance(self.operation, keras.layers.Normalization)
        return bool(getattr(self.operation, "weights", ())) and not fixed

    @property
    def channels(self) -> tuple[int, int]:
        """Size of the last axis of the first tensor read and of the last tensor made."""
        return self.shapes[0][-1] or 0, self.shapes[-1][-1] or 0


@dataclass(frozen=True)
class Block:
    """Layers that train together or not at all.

    Args:
        layers: in the order of the model, nested models opened.
        last: the `last` to pass to `unfreeze` so that training starts with this block; 0 for the
            head.

    Example:
        >>> import keras
        >>> from kpipe.train import find_blocks
        >>> layers = [keras.layers.Conv2D(8, 3, name="stem"), keras.layers.ReLU(name="relu")]
        >>> head = [keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(2)]
        >>> block = find_blocks(keras.Sequential([keras.Input((8, 8, 3)), *layers, *head]))[0]
        >>> [layer.name for layer in block.layers[1:]], block.last
        (['stem', 'relu'], 3)
    """

    layers: tuple[keras.layers.Layer, ...]
    last: int


@names_wrong_kinds
def find_blocks(model: keras.Model) -> tuple[Block, ...]:
    """Return the blocks of a model in order, its head last.

    Args:
        model: a functional or built Sequential model. Its head begins where its last feature map
            is pooled or flattened; without that, after the last output with height and width.

    Raises:
        TrainingError: a model without a graph of layers.

    Example:
        >>> import keras
        >>> from kpipe.train import find_blocks
        >>> image = keras.Input((8, 8, 3))
        >>> x = keras.layers.Conv2D(4, 3, name="stem")(image)
        >>> x = keras.layers.Add()([x, keras.layers.Conv2D(4, 1, name="branch")(x)])
        >>> x = keras.layers.Dense(2, name="logits")(keras.layers.GlobalMaxPooling2D()(x))
        >>> for block in find_blocks(keras.Model(image, x)):
        ...     print(block.last, [layer.name for layer in block.layers if layer.weights])
        4 ['stem']
        2 ['branch']
        0 ['logits']
    """
    steps = read_calls(model)
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


def read_calls(model: keras.Model) -> list[OperationCall]:
    """Return every use of an operation, in the order of the graph, nested models opened.

    Raises:
        TrainingError: a subclassed or unbuilt model.
    """
    graph = read_graph(model, TrainingError)
    return [
        OperationCall(
            call.operation,
            call.inputs,
            call.outputs,
            next((graph.tensors[n] for n in call.outputs if n in graph.tensors), None),
            tuple(tuple(tensor.shape) for tensor in (*call.read, *call.made)),
        )
        for call in graph.calls
    ]


def places(steps: list[OperationCall]) -> list[tuple[int, ...]]:
    """Return the numbers of the tensors that cross each place, starting before the first call.

    A place between two uses of one operation cannot be split, and gets an empty tuple.
    """
    ends: dict[int, int] = {}  # tensor -> the last call that reads it
    uses: dict[int, tuple[int, int]] = {}  # operation -> its first and last call
    for index, step in enumerate(steps):
        ends |= dict.fromkeys(step.reads, index)
        first, _ = uses.get(id(step.operation), (index, index))
        uses[id(step.operation)] = (first, index)
    inside = {place for first, last in uses.values() for place in range(first + 1, last + 1)}
    crossing: list[tuple[int, ...]] = [()]
    alive: dict[int, None] = {}
    for index, step in enumerate(steps):
        # A tensor that nothing reads is an output of the model and crosses every later place.
        alive |= dict.fromkeys(step.makes)
        alive = {t: None for t in alive if ends.get(t, len(steps)) > index}
        crossing.append(() if index + 1 in inside else tuple(alive))
    return crossing


def _head_start(steps: list[OperationCall]) -> int:
    crossing = places(steps)
    readers = [number for step in steps for number in step.reads]
    pooled = [
        index
        for index, step in enumerate(steps)
        if isinstance(step.operation, _POOLS)
        and len(step.shapes[0]) == 4
        and crossing[index] == step.reads
        and readers.count(step.reads[0]) == 1  # unlike the squeeze of a gate
    ]
    maps = [index + 1 for index, step in enumerate(steps) if len(step.shapes[-1]) == 4]
    return pooled[-1] if pooled else maps[-1] if maps else 0


def _pieces(steps: list[OperationCall], end: int) -> Iterator[list[OperationCall]]:
    """Yield the calls before `end`, split wherever the graph is a chain."""
    crossing = places(steps)
    kinds = {number: type(step.operation).__name__ for step in steps for number in step.makes}
    single = [0, *(p for p in range(1, end) if len(crossing[p]) == 1), end]
    for first, last in itertools.pairwise(single):
        cells = [
            place
            for place in range(first + 1, last)
            if crossing[place] and all(kinds[t] == "Concatenate" for t in crossing[place])
        ]
        # One such place is a residual block around branches; several are a net of cells.
        cuts = [first, *(cells if len(cells) > 1 else []), last]
        for start, stop in itertools.pairwise(cuts):
            yield steps[start:stop]


def _joined(pieces: Iterator[list[OperationCall]]) -> list[list[OperationCall]]:
    """Join pieces of the chain to blocks by the table in the module's docstring."""
    blocks: list[list[list[OperationCall]]] = [[]]
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
        # Expansion, depthwise filter, projection: recognized only at the projection.
        inner = _cores(blocks[-1])
        filtered = len(blocks) > 1 and len(inner) > 1 and _is_depthwise(inner[0])
        if filtered and _change(piece) < 0 < _change(_cores(blocks[-2])[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    if len(blocks) > 1 and not _cores(blocks[-1]):
        blocks[-2:] = [blocks[-2] + blocks[-1]]  # the normalization before the head
    return [[step for piece in block for step in piece] for block in blocks if block]


def _cores(block: list[list[OperationCall]]) -> list[list[OperationCall]]:
    """Return the pieces with weights that are neither normalization nor gate."""
    return [
        piece
        for piece in block
        if any(step.weighted for step in piece)
        and not _is_normalization(piece)
        and not _is_gate(piece)
    ]


def _is_normalization(piece: list[OperationCall]) -> bool:
    return len(piece) == 1 and isinstance(piece[0].operation, _NORMALIZATIONS)


def _is_gate(piece: list[OperationCall]) -> bool:
    return len(piece) > 1 and type(piece[-1].operation).__name__ == "Multiply"


def _is_depthwise(piece: list[OperationCall]) -> bool:
    operation = piece[0].operation
    return len(piece) == 1 and (
        isinstance(operation, keras.layers.DepthwiseConv2D)
        or getattr(operation, "groups", 1) == piece[0].channels[0] > 1
    )


def _change(piece: list[OperationCall]) -> int:
    """Return by how many channels a single convolution widens its input; else 0."""
    if len(piece) > 1 or not piece[0].weighted or _is_depthwise(piece):
        return 0
    before, after = piece[0].channels
    return after - before
