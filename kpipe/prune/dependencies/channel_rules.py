"""Rules of layers that pass on, join, lay out or mix the channels of their inputs.

    pass channels on         normalization per channel, activations, pooling, padding, dropout
    join channels            Add and the like, elementwise over inputs that broadcast
    lay out channels         Concatenate, Flatten, Reshape
    keep channels last       raw operations that pad, slice, resize, add or drop other axes
    join groups of channels  GroupNormalization
    protect channels         layers that mix them: Softmax, LayerNormalization

Removing a channel must equal masking it. So a rule passes a channel on only if that output channel
depends on its own input channel alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kpipe.prune.dependencies.rules import (
    ChannelIds,
    Kept,
    LayerCall,
    LayerChange,
    Rule,
    protect_channels,
    protect_if_mixed,
    same_channels,
)
from kpipe.prune.graph.model_graph import Operation, Tensor

__all__ = ["CHANNEL_RULES"]

_CHANNELWISE_LAYERS = """
    ReLU LeakyReLU ELU Identity ActivityRegularization
    SpatialDropout1D SpatialDropout2D SpatialDropout3D GaussianDropout GaussianNoise
    MaxPooling1D MaxPooling2D MaxPooling3D AveragePooling1D AveragePooling2D AveragePooling3D
    GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D
    GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D
    ZeroPadding1D ZeroPadding2D ZeroPadding3D Cropping1D Cropping2D Cropping3D
    UpSampling1D UpSampling2D UpSampling3D CenterCrop
    AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D
    AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D
"""
_CHANNELWISE_OPERATIONS = """
    Relu Relu6 LeakyRelu Elu Selu Celu Gelu Silu HardSilu Sigmoid HardSigmoid LogSigmoid Softplus
    Softsign Squareplus Tanh HardTanh Absolute Negative Square Sqrt Exp Cast
    MaxPool AveragePool
"""
_ELEMENTWISE = ("Add", "Subtract", "Multiply", "Maximum", "Minimum")
_PROTECTED = {
    "layers.InputLayer": "a model input",
    "layers.Softmax": "softmax mixes the channels",
    "ops.Softmax": "softmax mixes the channels",
    "layers.LayerNormalization": "LayerNormalization normalizes over the channels",
    "layers.RMSNormalization": "RMSNormalization normalizes over the channels",
    "layers.Normalization": "Normalization holds constants per channel",
}


def _link_activation(call: LayerCall) -> ChannelIds:
    return protect_if_mixed(call, same_channels(call))


def _link_batch_norm(call: LayerCall) -> ChannelIds:
    if call.operation.config["axis"] not in (-1, len(call.output_shape) - 1):
        return protect_channels("it normalizes another axis than the last")(call)
    return same_channels(call)


def _prune_batch_norm(operation: Operation, inputs: Sequence[Kept], output: Kept) -> LayerChange:
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    return LayerChange({}, {name: {0: output} for name in names})


def _link_group_norm(call: LayerCall) -> ChannelIds:
    """Remove the channels of one group together: they are normalized together."""
    config, ids, groups = (
        call.operation.config,
        same_channels(call),
        call.operation.config["groups"],
    )
    if config["axis"] not in (-1, len(call.output_shape) - 1):
        return protect_channels("it normalizes another axis than the last")(call)
    if groups == 1:
        return protect_channels("it normalizes over all channels")(call)
    if not call.operation.weights:
        return protect_channels("without weights, it does not say how wide its groups are")(call)
    together = ids.reshape(groups, -1)
    for place in range(1, together.shape[1]):
        call.constraints.join(together[:, 0], together[:, place])
    return ids


def _prune_group_norm(operation: Operation, inputs: Sequence[Kept], output: Kept) -> LayerChange:
    if not operation.weights:
        return LayerChange()
    (before,) = next(iter(operation.weights.values()))
    groups = operation.config["groups"] * len(output) // before
    return LayerChange({"groups": groups}, {name: {0: output} for name in operation.weights})


def _prune_dropout(operation: Operation, inputs: Sequence[Kept], output: Kept) -> LayerChange:
    shape = operation.config.get("noise_shape")
    if not shape or shape[-1] in (None, 1):
        return LayerChange()
    return LayerChange({"noise_shape": (*shape[:-1], len(output))})


def _prune_prelu(operation: Operation, inputs: Sequence[Kept], output: Kept) -> LayerChange:
    axes, rank = operation.config["shared_axes"] or (), len(operation.weights["alpha"])
    shared = any((axis - 1) % rank == rank - 1 for axis in axes)  # as Keras counts them
    return LayerChange({}, {"alpha": {} if shared else {-1: output}})


def _prune_layer_scale(operation: Operation, inputs: Sequence[Kept], output: Kept) -> LayerChange:
    return LayerChange(
        {"projection_dim": len(output)}, {name: {0: output} for name in operation.weights}
    )


def _link_rescaling(call: LayerCall) -> ChannelIds:
    layer = call.operation.source  # the configuration holds an array as a dictionary
    if any(np.asarray(getattr(layer, name)).size > 1 for name in ("scale", "offset")):
        return protect_channels("it has a scale or offset per channel")(call)
    return same_channels(call)


def _link_reduction(call: LayerCall) -> ChannelIds:
    axis, rank = call.operation.config.get("axis"), len(call.input_shapes[0])
    axes = {a % rank for a in ([axis] if isinstance(axis, int) else axis or range(rank))}
    if axes & {0, rank - 1}:
        return protect_channels("it reduces over the channels or the batch")(call)
    return same_channels(call)


def _link_merge(call: LayerCall) -> ChannelIds:
    """Join channels of the same position: elementwise over inputs that broadcast."""
    for constant in call.node.constants():
        if np.shape(constant)[-1:] not in ((), (1,)):
            return protect_channels("it has a constant per channel")(call)
    wide = [ids for ids in call.inputs if len(ids) == call.size]
    if not wide:
        return protect_channels("it broadcasts channels on both sides")(call)
    for ids in wide[1:]:
        call.constraints.join(wide[0], ids)
    return wide[0]


def _link_divide(call: LayerCall) -> ChannelIds:
    if len(call.inputs) > 1 or not isinstance(call.node.arguments[0][0], Tensor):
        return protect_channels("a removed channel of a divisor cannot be masked by zero")(call)
    return _link_merge(call)


def _link_power(call: LayerCall) -> ChannelIds:
    if len(call.inputs) > 1 or not isinstance(call.node.arguments[0][0], Tensor):
        return protect_channels("a removed channel of an exponent cannot be masked by zero")(call)
    if any(np.any(np.asarray(constant) < 0) for constant in call.node.constants()):
        return protect_channels("a removed channel of a divisor cannot be masked by zero")(call)
    return _link_merge(call)


def _link_pad(call: LayerCall) -> ChannelIds:
    width = call.operation.config["pad_width"]  # one number or pair for all axes, or one per axis
    if np.any(width if np.ndim(width) < 2 else width[-1]):
        return protect_channels("it pads the channels")(call)
    return same_channels(call)


def _link_expand(call: LayerCall) -> ChannelIds:
    last = len(call.output_shape) - 1
    if {axis % (last + 1) for axis in np.atleast_1d(call.operation.config["axis"])} & {0, last}:
        return protect_channels("it moves the channels or the batch to another axis")(call)
    return same_channels(call)


def _link_squeeze(call: LayerCall) -> ChannelIds:
    axis, rank = call.operation.config["axis"], len(call.input_shapes[0])
    if axis is None:
        return protect_channels(
            "without an axis, it would drop the channels if a single one were left"
        )(call)
    if {a % rank for a in np.atleast_1d(axis)} & {0, rank - 1}:
        return protect_channels("it drops the axis of the channels or the batch")(call)
    return same_channels(call)


def _link_slice(call: LayerCall) -> ChannelIds:
    """Follow slices of positions; protect the channels if some of them are sliced away."""
    (_, key), rank = call.node.arguments[0], len(call.input_shapes[0])
    if rank < 2:
        return protect_channels("it takes some of the batch")(call)
    parts = list(key) if isinstance(key, tuple | list) else [key]
    if not all(part is Ellipsis or isinstance(part, slice | int) for part in parts):
        return protect_channels("it takes channels or positions by more than numbers and slices")(
            call
        )
    if Ellipsis in parts:
        place = parts.index(Ellipsis)
        parts[place : place + 1] = [slice(None)] * (rank - len(parts) + 1)
    parts += [slice(None)] * (rank - len(parts))
    if not isinstance(parts[0], slice) or parts[-1] != slice(None):
        return protect_channels("it takes some of the channels, or of the batch")(call)
    return same_channels(call)


def _link_resize(call: LayerCall) -> ChannelIds:
    if call.operation.config["data_format"] == "channels_first":
        return protect_channels("it takes the first axis for the channels")(call)
    return _link_fill(call)


def _link_scalar(*names: str) -> Callable[[LayerCall], ChannelIds]:
    """Pass channels on if these settings are one number for all of them."""

    def link(call: LayerCall) -> ChannelIds:
        if any(np.size(call.operation.config[name]) > 1 for name in names):
            return protect_channels("it has a constant per channel")(call)
        return same_channels(call)

    return link


_link_fill = _link_scalar("fill_value")


def _link_concatenate(call: LayerCall) -> ChannelIds:
    rank = len(call.output_shape)
    if call.operation.config["axis"] in (-1, rank - 1):
        if sum(map(len, call.inputs)) != call.size:
            return protect_channels("it joins a constant to the channels")(call)
        return np.concatenate(call.inputs)
    return _link_merge(call)


def _link_layout(call: LayerCall) -> ChannelIds:
    """Flatten and Reshape: element f of an image, in memory order, has channel f mod channels.

    So the channel of an output position is known if the last axis of the output is a multiple of
    the last axis of the input.
    """
    ids = call.inputs[0]
    if call.size % len(ids):
        return protect_channels("it splits the channels over several axes")(call)
    return np.tile(ids, call.size // len(ids))


def _prune_shape(name: str) -> Any:
    def prune(operation: Operation, inputs: Sequence[Kept], output: Kept) -> LayerChange:
        shape = list(operation.config[name])
        if not shape:
            return LayerChange()
        # Keras computes a -1 in another dimension from the remaining elements.
        shape[-1] = shape[-1] if shape[-1] == -1 else len(output)
        return LayerChange({name: tuple(shape)})

    return prune


_MERGE = Rule(_link_merge)
_DIVIDE = Rule(_link_divide)
_CONCATENATE = Rule(_link_concatenate)
_REDUCTION = Rule(_link_reduction)

CHANNEL_RULES: dict[str, Rule] = {
    **{f"layers.{name}": Rule(same_channels) for name in _CHANNELWISE_LAYERS.split()},
    **{f"ops.{name}": Rule(same_channels) for name in _CHANNELWISE_OPERATIONS.split()},
    **{kind: Rule(protect_channels(reason)) for kind, reason in _PROTECTED.items()},
    **{f"layers.{name}": _MERGE for name in ("Average", *_ELEMENTWISE)},
    **{f"ops.{name}": _MERGE for name in _ELEMENTWISE},
    **{f"ops.{name}": _REDUCTION for name in ("Mean", "Sum", "Max", "Min")},
    "layers.BatchNormalization": Rule(_link_batch_norm, _prune_batch_norm),
    "layers.GroupNormalization": Rule(_link_group_norm, _prune_group_norm),
    "layers.Dropout": Rule(same_channels, _prune_dropout),
    "layers.PReLU": Rule(same_channels, _prune_prelu),
    "layers.Rescaling": Rule(_link_rescaling),
    "layers.Resizing": Rule(_link_fill),
    "layers.Activation": Rule(_link_activation),
    "layers.Concatenate": _CONCATENATE,
    "layers.Flatten": Rule(_link_layout),
    "layers.Reshape": Rule(_link_layout, _prune_shape("target_shape")),
    "ops.Clip": Rule(_link_scalar("x_min", "x_max")),
    "ops.Concatenate": _CONCATENATE,
    "ops.Divide": _DIVIDE,
    "ops.ExpandDims": Rule(_link_expand),
    "ops.GetItem": Rule(_link_slice),
    "ops.Pad": Rule(_link_pad),
    "ops.Power": Rule(_link_power),
    "ops.Resize": Rule(_link_resize),
    "ops.Squeeze": Rule(_link_squeeze),
    "ops.TrueDivide": _DIVIDE,
    "ops.Reshape": Rule(_link_layout, _prune_shape("newshape")),
    "applications.CustomScaleLayer": _MERGE,
    "applications.LayerScale": Rule(same_channels, _prune_layer_scale),
    "applications.StochasticDepth": Rule(same_channels),
}
