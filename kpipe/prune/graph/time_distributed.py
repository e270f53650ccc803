"""Open `TimeDistributed`, so that channels run through the layer or model inside.

    TimeDistributed(inside)(x)    x: (batch, time, height, width, channels)

    x  ->  reshape to (batch * time, height, width, channels)
       ->  the calls of `inside`
       ->  reshape to (batch, time, ...), under the name of the TimeDistributed

It stays closed if a size is not fixed, if the inside has no graph or names of other layers, and in
a network with masks, which a reshape would lose.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from kpipe.errors import PruneError
from kpipe.keras_graph import KerasCall, Tensor, find_graph, read_graph
from kpipe.keras_internals import Reshape, context_arguments, mask_of

__all__ = ["open_time_distributed"]


def open_time_distributed(closed: Sequence[KerasCall]) -> list[KerasCall]:
    """Return the calls of a graph with those inside of each `TimeDistributed` in its place."""
    if any(mask_of(tensor) is not None for call in closed for tensor in call.made):
        return list(closed)
    owners = {call.operation.name: call.operation for call in closed}
    numbers = itertools.count(max(n for call in closed for n in call.outputs) + 1)
    calls: list[KerasCall] = []
    uses: Counter[str] = Counter()
    for call in closed:
        wrapper = call.operation
        again = f"_{uses[wrapper.name] + 1}" if uses[wrapper.name] else ""
        inside = _inside(call, numbers, again)
        known = (owners.get(c.operation.name, c.operation) for c in inside)
        if any(
            owner is not c.operation and owner is not wrapper
            for owner, c in zip(known, inside, strict=True)
        ):
            inside = []
        uses[wrapper.name] += 1
        calls += inside or [call]
        owners |= {c.operation.name: c.operation for c in inside}
    return calls


def _inside(call: KerasCall, numbers: Iterator[int], again: str) -> list[KerasCall]:
    """The calls that take the place of a `TimeDistributed`, or none if it stays closed."""
    wrapper = call.operation
    if type(wrapper) is not keras.layers.TimeDistributed or len(call.read) != 1:
        return []
    (given,), (result,) = call.read, call.made
    if None in (*given.shape[1:], *result.shape[1:]):
        return []
    renumbered: dict[int, int] = defaultdict(lambda: next(numbers))
    if isinstance(wrapper.layer, keras.Model):
        if find_graph(wrapper.layer) is None:
            return []
        graph = read_graph(wrapper.layer, PruneError)
        if len(graph.inputs) != 1 or len(graph.outputs) != 1 or graph.inputs == graph.outputs:
            return []
        calls = [inner for inner in open_time_distributed(graph.calls) if inner.inputs]
        first, last = graph.inputs[0], graph.outputs[0]
    else:
        rows, made = (
            keras.KerasTensor((None, *tensor.shape[2:]), tensor.dtype) for tensor in (given, result)
        )
        first, last = 0, 1
        arguments: Any = ((Tensor(0),), {})
        alone = KerasCall(wrapper.layer, (0,), (1,), arguments, (rows,), (made,))
        calls = open_time_distributed([alone])

    def moved(x: Any) -> Any:
        return Tensor(renumbered[x.number]) if isinstance(x, Tensor) else x

    training = call.arguments[1].get("training")
    inside = []
    for inner in calls:
        args, kwargs = keras.tree.map_structure(moved, inner.arguments)
        if training is not None and "training" in context_arguments(inner.operation):
            kwargs |= {"training": training}
        inputs, outputs = (
            tuple(renumbered[n] for n in side) for side in (inner.inputs, inner.outputs)
        )
        inside.append(
            KerasCall(inner.operation, inputs, outputs, (args, kwargs), inner.read, inner.made)
        )
    names = {inner.operation.name for inner in inside}
    end = wrapper.name if wrapper.name not in names else f"{wrapper.name}_end"
    start, stop = renumbered[first], renumbered[last]
    apart, together = (-1, *given.shape[2:]), (-1, *result.shape[1:])
    rows = keras.KerasTensor((None, *result.shape[2:]), result.dtype)
    return [
        _reshaped(f"{wrapper.name}_frames{again}", apart, call.inputs[0], start, given),
        *inside,
        _reshaped(f"{end}{again}", together, stop, call.outputs[0], rows),
    ]


def _reshaped(name: str, shape: tuple[int, ...], read: int, made: int, given: Any) -> KerasCall:
    result = keras.KerasTensor((None, *shape[1:]), given.dtype)
    arguments: Any = ((Tensor(read),), {})
    return KerasCall(Reshape(shape, name=name), (read,), (made,), arguments, (given,), (result,))
