"""Rules of layers whose filters make new channels, and of depthwise convolutions.

    layer                  output channels      kernel
    Conv, groups=1         new                  (..., input, filters)
    Conv, groups=g         new, g at a time     (..., input / g, filters)
    Conv, groups=input     those of the input   (..., 1, filters)
    ConvTranspose          new                  (..., filters, input)
    DepthwiseConv          those of the input   (..., input, multiplier)
    SeparableConv          new                  both of the above
    Dense                  new                  (input, units)

An activation inside the layer that mixes channels, such as softmax, protects them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kpipe.prune.dependencies.rules import (
    ChannelIds,
    Kept,
    LayerCall,
    LayerChange,
    Rule,
    new_channels,
    protect_if_mixed,
)
from kpipe.prune.graph.model_graph import Operation

__all__ = ["FILTER_RULES"]


def _link_new(call: LayerCall) -> ChannelIds:
    return protect_if_mixed(call, new_channels(call))


def _window(operation: Operation, name: str = "kernel") -> int:
    return math.prod(operation.weights[name][:-2])


def _groups(operation: Operation) -> int:
    return operation.config.get("groups") or 1


def _link_conv(call: LayerCall) -> ChannelIds:
    groups, ids = _groups(call.operation), call.inputs[0]
    if groups == 1:
        return _link_new(call)
    if groups == len(ids):  # each filter reads one channel alone: it goes with that channel
        return protect_if_mixed(call, np.repeat(ids, call.size // groups))
    made = _link_new(call)
    # Groups must stay equally wide, so the same position of every group goes together.
    for grouped in (ids.reshape(groups, -1), made.reshape(groups, -1)):
        for row in grouped[1:]:
            call.constraints.join(grouped[0], row)
    return made


def _prune_conv(operation: Operation, inputs: Sequence[Kept], output: Kept) -> LayerChange:
    width, groups = operation.weights["kernel"][-2], _groups(operation)
    config: dict[str, Any] = {"filters": len(output)}
    read = inputs[0] if groups == 1 else inputs[0][inputs[0] < width]
    if groups > 1 and width == 1:
        config["groups"] = len(inputs[0])
        read = np.zeros(1, np.int64)  # the one channel that each filter reads
    return LayerChange(config, {"kernel": {-2: read, -1: output}, "bias": {0: output}})


def _macs_conv(operation: Operation, before: int, after: int, read: int, made: int) -> int:
    groups = _groups(operation)
    each = 1 if operation.weights["kernel"][-2] == 1 and groups > 1 else read // groups
    return after * _window(operation) * each * made


def _prune_transpose(operation: Operation, inputs: Sequence[Kept], output: Kept) -> LayerChange:
    weights = {"kernel": {-2: output, -1: inputs[0]}, "bias": {0: output}}
    return LayerChange({"filters": len(output)}, weights)


def _macs_transpose(operation: Operation, before: int, after: int, read: int, made: int) -> int:
    return before * _window(operation) * read * made


def _prune_dense(operation: Operation, inputs: Sequence[Kept], output: Kept) -> LayerChange:
    weights = {"kernel": {0: inputs[0], 1: output}, "bias": {0: output}}
    return LayerChange({"units": len(output)}, weights)


def _macs_dense(operation: Operation, before: int, after: int, read: int, made: int) -> int:
    return after * read * made


def _link_depthwise(call: LayerCall) -> ChannelIds:
    multiplier = call.operation.config["depth_multiplier"]
    return protect_if_mixed(call, np.repeat(call.inputs[0], multiplier))


def _prune_depthwise(operation: Operation, inputs: Sequence[Kept], output: Kept) -> LayerChange:
    return LayerChange({}, {"kernel": {-2: inputs[0]}, "bias": {0: output}})


def _macs_depthwise(operation: Operation, before: int, after: int, read: int, made: int) -> int:
    return after * _window(operation) * made


def _prune_separable(operation: Operation, inputs: Sequence[Kept], output: Kept) -> LayerChange:
    multiplier = operation.config["depth_multiplier"]
    between = (inputs[0][:, None] * multiplier + np.arange(multiplier)).ravel()
    weights = {
        "depthwise_kernel": {-2: inputs[0]},
        "pointwise_kernel": {-2: between, -1: output},
        "bias": {0: output},
    }
    return LayerChange({"filters": len(output)}, weights)


def _macs_separable(operation: Operation, before: int, after: int, read: int, made: int) -> int:
    between = read * operation.config["depth_multiplier"]
    return after * between * (_window(operation, "depthwise_kernel") + made)


_CONV = Rule(_link_conv, _prune_conv, _macs_conv, {"kernel": -1})
_TRANSPOSE = Rule(_link_new, _prune_transpose, _macs_transpose, {"kernel": -2})
_DEPTHWISE = Rule(_link_depthwise, _prune_depthwise, _macs_depthwise)
_SEPARABLE = Rule(_link_new, _prune_separable, _macs_separable, {"pointwise_kernel": -1})

FILTER_RULES: dict[str, Rule] = {
    "layers.Conv1D": _CONV,
    "layers.Conv2D": _CONV,
    "layers.Conv3D": _CONV,
    "layers.Conv1DTranspose": _TRANSPOSE,
    "layers.Conv2DTranspose": _TRANSPOSE,
    "layers.Conv3DTranspose": _TRANSPOSE,
    "layers.DepthwiseConv1D": _DEPTHWISE,
    "layers.DepthwiseConv2D": _DEPTHWISE,
    "layers.SeparableConv1D": _SEPARABLE,
    "layers.SeparableConv2D": _SEPARABLE,
    "layers.Dense": Rule(_link_new, _prune_dense, _macs_dense, {"kernel": -1}),
}
