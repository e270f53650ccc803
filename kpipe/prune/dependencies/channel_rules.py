"""Rules of layers that pass on, join, lay out or mix the channels of their inputs.

    pass channels on         normalization per channel, activations, pooling, padding, dropout
    join channels            Add and the like, elementwise over inputs that broadcast
    keep channels last       raw operations that pad and resize
    join groups of channels  GroupNormalization
    protect channels         layers that mix them: Softmax or LayerNormalization over the channels

The rules of layers that rearrange channels are in `layout_rules`.

Removing a channel must equal masking it. So a rule passes a channel on only if that output channel
depends on its own input channel alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from kpipe.prune.dependencies.rules import (
    ChannelIds,
    Kept,
    LayerCall,
    LayerChange,
    Rule,
    link_merge,
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
    "layers.Normalization": "Normalization holds constants per channel",
}


def _link_other_axes(doing: str) -> Callable[[LayerCall], ChannelIds]:
    """Pass channels on if what the layer does over its axes is done for each channel alone."""

    def link(call: LayerCall) -> ChannelIds:
        axis, rank = call.operation.config["axis"], len(call.output_shape)
        axes = range(rank) if axis is None else np.atleast_1d(axis)
        if rank - 1 in {int(a) % rank for a in axes}:
            name = call.operation.kind.rpartition(".")[2]
            return protect_channels(f"{name} {doing} the channels")(call)
        return same_channels(call)

    return link


def _prune_no_weight(operation: Operation, inputs: Sequence[Kept], output: Kept) -> LayerChange:
    return LayerChange({}, {name: {} for name in operation.weights})


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


def _link_divide(call: LayerCall) -> ChannelIds:
    if len(call.inputs) > 1 or not isinstance(call.node.arguments[0][0], Tensor):
        return protect_channels("a removed channel of a divisor cannot be masked by zero")(call)
    return link_merge(call)


def _link_power(call: LayerCall) -> ChannelIds:
    if len(call.inputs) > 1 or not isinstance(call.node.arguments[0][0], Tensor):
        return protect_channels("a removed channel of an exponent cannot be masked by zero")(call)
    if any(np.any(np.asarray(constant) < 0) for constant in call.node.constants()):
        return protect_channels("a removed channel of a divisor cannot be masked by zero")(call)
    return link_merge(call)


def _link_pad(call: LayerCall) -> ChannelIds:
    width = call.operation.config["pad_width"]  # one number or pair for all axes, or one per axis
    if np.any(width if np.ndim(width) < 2 else width[-1]):
        return protect_channels("it pads the channels")(call)
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


_MERGE = Rule(link_merge)
_SOFTMAX = Rule(_link_other_axes("mixes"))
_NORMALIZE = Rule(_link_other_axes("normalizes over"), _prune_no_weight)
_DIVIDE = Rule(_link_divide)
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
    "layers.Softmax": _SOFTMAX,
    "layers.LayerNormalization": _NORMALIZE,
    "layers.RMSNormalization": _NORMALIZE,
    "ops.Clip": Rule(_link_scalar("x_min", "x_max")),
    "ops.Divide": _DIVIDE,
    "ops.Pad": Rule(_link_pad),
    "ops.Power": Rule(_link_power),
    "ops.Resize": Rule(_link_resize),
    "ops.Softmax": _SOFTMAX,
    "ops.LogSoftmax": _SOFTMAX,
    "ops.TrueDivide": _DIVIDE,
    "applications.CustomScaleLayer": _MERGE,
    "applications.LayerScale": Rule(same_channels, _prune_layer_scale),
    "applications.StochasticDepth": Rule(same_channels),
}
