"""Rules of recurrent layers: they read channels, and keep their units.

    kernel            (..., input, units * gates)    input channels can be removed
    recurrent_kernel  (..., units, units * gates)    the units feed back into each other

where ... is the window of a ConvLSTM.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from kpipe.prune.dependencies.rules import (
    ChannelIds,
    Kept,
    LayerCall,
    LayerChange,
    Rule,
    new_channels,
    protect_channels,
)
from kpipe.prune.graph.model_graph import Operation, kind_of

__all__ = ["RECURRENT_RULES"]


def _link_recurrent(call: LayerCall) -> ChannelIds:
    made = new_channels(call)
    for ids in (made, *call.inputs[1:]):  # those are states
        call.protect(ids, "the units of a recurrent layer feed back into each other")
    return made


def _is_kernel(name: str) -> bool:
    return name.partition("#")[0] == "kernel"  # "kernel#2" reads backward


def _prune_recurrent(operation: Operation, inputs: Sequence[Kept], output: Kept) -> LayerChange:
    weights = {name: {-2: inputs[0]} if _is_kernel(name) else {} for name in operation.weights}
    return LayerChange({}, weights)


def _macs_recurrent(operation: Operation, before: int, after: int, read: int, made: int) -> int:
    matrices = {
        name: shape
        for name, shape in operation.weights.items()
        if len(shape) > 1 and "bias" not in name  # a GRU has two rows of biases
    }
    if any(len(shape) > 2 for shape in matrices.values()):
        steps = operation.calls[0].input_shapes[0][1] or 0
        before = after if operation.source.return_sequences else after * steps
    return before * sum(
        math.prod(shape[:-2]) * (read if _is_kernel(name) else shape[-2]) * shape[-1]
        for name, shape in matrices.items()
    )


def _link_bidirectional(call: LayerCall) -> ChannelIds:
    for layer in (call.operation.source.forward_layer, call.operation.source.backward_layer):
        if kind_of(layer) not in RECURRENT_RULES:
            return protect_channels(f"no rule says what {kind_of(layer)} does to channels")(call)
    return _link_recurrent(call)


_RECURRENT = Rule(_link_recurrent, _prune_recurrent, _macs_recurrent)

RECURRENT_RULES: dict[str, Rule] = {
    "layers.Bidirectional": Rule(_link_bidirectional, _prune_recurrent, _macs_recurrent),
    "layers.ConvLSTM1D": _RECURRENT,
    "layers.ConvLSTM2D": _RECURRENT,
    "layers.ConvLSTM3D": _RECURRENT,
    "layers.GRU": _RECURRENT,
    "layers.LSTM": _RECURRENT,
    "layers.SimpleRNN": _RECURRENT,
}
