"""The rules of layers that hand on, join, lay out or mix the channels they are given.

    hands channels on     normalization per channel, activations, pooling, padding, dropout
    joins channels        Add and its like, elementwise over inputs that broadcast
    lays out channels     Concatenate, Flatten, Reshape
    leaves them last      raw operations that pad, slice, resize, add or drop other axes
    joins groups of them  GroupNormalization
    must keep channels    what mixes or normalizes over all: Softmax, LayerNormalization, ...

Masking is the meaning of every rule here: a rule hands channels on only where an output channel
depends on its own input channel alone, so that removing a channel equals masking it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kpipe.prune.dependencies.rules import Cut, Ids, Rule, Site, activated, follow, freeze
from kpipe.prune.graph.model_graph import Operation, Tensor

__all__ = ["CHANNEL_RULES"]

_FOLLOWING_LAYERS = """
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
_FOLLOWING_OPERATIONS = """
    Relu Relu6 LeakyRelu Elu Selu Celu Gelu Silu HardSilu Sigmoid HardSigmoid LogSigmoid Softplus
    Softsign Squareplus Tanh HardTanh Absolute Negative Square Sqrt Exp Cast
    MaxPool AveragePool
"""
_ELEMENTWISE = ("Add", "Subtract", "Multiply", "Maximum", "Minimum")
_STAYING = {
    "layers.InputLayer": "a model input",
    "layers.Softmax": "softmax mixes the channels",
    "ops.Softmax": "softmax mixes the channels",
    "layers.LayerNormalization": "LayerNormalization normalizes over the channels",
    "layers.RMSNormalization": "RMSNormalization normalizes over the channels",
    "layers.Normalization": "Normalization holds constants per channel",
}


def _link_activation(site: Site) -> Ids:
    return activated(site, follow(site))


def _link_batch_norm(site: Site) -> Ids:
    if site.operation.config["axis"] not in (-1, len(site.output_shape) - 1):
        return freeze("it normalizes another axis than the last")(site)
    return follow(site)


def _cut_batch_norm(operation: Operation, inputs: Sequence[Ids], output: Ids) -> Cut:
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    return Cut({}, {name: {0: output} for name in names})


def _link_group_norm(site: Site) -> Ids:
    """Channels of one group are normalized together, so they go together."""
    config, ids, groups = site.operation.config, follow(site), site.operation.config["groups"]
    if config["axis"] not in (-1, len(site.output_shape) - 1):
        return freeze("it normalizes another axis than the last")(site)
    if groups == 1:
        return freeze("it normalizes over all channels")(site)
    if not site.operation.weights:
        return freeze("without weights, it does not say how wide its groups are")(site)
    together = ids.reshape(groups, -1)
    for place in range(1, together.shape[1]):
        site.channels.join(together[:, 0], together[:, place])
    return ids


def _cut_group_norm(operation: Operation, inputs: Sequence[Ids], output: Ids) -> Cut:
    if not operation.weights:
        return Cut()
    (before,) = next(iter(operation.weights.values()))
    groups = operation.config["groups"] * len(output) // before
    return Cut({"groups": groups}, {name: {0: output} for name in operation.weights})


def _cut_dropout(operation: Operation, inputs: Sequence[Ids], output: Ids) -> Cut:
    shape = operation.config.get("noise_shape")
    if not shape or shape[-1] in (None, 1):
        return Cut()
    return Cut({"noise_shape": (*shape[:-1], len(output))})


def _cut_prelu(operation: Operation, inputs: Sequence[Ids], output: Ids) -> Cut:
    axes, rank = operation.config["shared_axes"] or (), len(operation.weights["alpha"])
    shared = any((axis - 1) % rank == rank - 1 for axis in axes)  # as Keras counts them
    return Cut({}, {"alpha": {} if shared else {-1: output}})


def _cut_layer_scale(operation: Operation, inputs: Sequence[Ids], output: Ids) -> Cut:
    return Cut({"projection_dim": len(output)}, {name: {0: output} for name in operation.weights})


def _link_rescaling(site: Site) -> Ids:
    layer = site.operation.source  # the configuration tells an array as a dictionary
    if any(np.asarray(getattr(layer, name)).size > 1 for name in ("scale", "offset")):
        return freeze("it has a scale or offset per channel")(site)
    return follow(site)


def _link_reduction(site: Site) -> Ids:
    axis, rank = site.operation.config.get("axis"), len(site.input_shapes[0])
    axes = {a % rank for a in ([axis] if isinstance(axis, int) else axis or range(rank))}
    if axes & {0, rank - 1}:
        return freeze("it reduces over the channels or the batch")(site)
    return follow(site)


def _link_merge(site: Site) -> Ids:
    """Elementwise over inputs that broadcast: channels of the same position go together."""
    for constant in site.call.constants():
        if np.shape(constant)[-1:] not in ((), (1,)):
            return freeze("it has a constant per channel")(site)
    wide = [ids for ids in site.inputs if len(ids) == site.size]
    if not wide:
        return freeze("it broadcasts channels on both sides")(site)
    for ids in wide[1:]:
        site.channels.join(wide[0], ids)
    return wide[0]


def _link_divide(site: Site) -> Ids:
    if len(site.inputs) > 1 or not isinstance(site.call.arguments[0][0], Tensor):
        return freeze("a removed channel of a divisor cannot be masked by zero")(site)
    return _link_merge(site)


def _link_power(site: Site) -> Ids:
    if len(site.inputs) > 1 or not isinstance(site.call.arguments[0][0], Tensor):
        return freeze("a removed channel of an exponent cannot be masked by zero")(site)
    if any(np.any(np.asarray(constant) < 0) for constant in site.call.constants()):
        return freeze("a removed channel of a divisor cannot be masked by zero")(site)
    return _link_merge(site)


def _link_pad(site: Site) -> Ids:
    width = site.operation.config["pad_width"]  # one number or pair for all axes, or one per axis
    if np.any(width if np.ndim(width) < 2 else width[-1]):
        return freeze("it pads the channels")(site)
    return follow(site)


def _link_expand(site: Site) -> Ids:
    last = len(site.output_shape) - 1
    if {axis % (last + 1) for axis in np.atleast_1d(site.operation.config["axis"])} & {0, last}:
        return freeze("it moves the channels or the batch to another axis")(site)
    return follow(site)


def _link_squeeze(site: Site) -> Ids:
    axis, rank = site.operation.config["axis"], len(site.input_shapes[0])
    if axis is None:
        return freeze("without an axis, it would drop the channels if a single one were left")(site)
    if {a % rank for a in np.atleast_1d(axis)} & {0, rank - 1}:
        return freeze("it drops the axis of the channels or the batch")(site)
    return follow(site)


def _link_slice(site: Site) -> Ids:
    """What is taken of the positions; of the channels all, or they stay."""
    (_, key), rank = site.call.arguments[0], len(site.input_shapes[0])
    if rank < 2:
        return freeze("it takes some of the batch")(site)
    parts = list(key) if isinstance(key, tuple | list) else [key]
    if not all(part is Ellipsis or isinstance(part, slice | int) for part in parts):
        return freeze("it takes channels or positions by more than numbers and slices")(site)
    if Ellipsis in parts:
        place = parts.index(Ellipsis)
        parts[place : place + 1] = [slice(None)] * (rank - len(parts) + 1)
    parts += [slice(None)] * (rank - len(parts))
    if not isinstance(parts[0], slice) or parts[-1] != slice(None):
        return freeze("it takes some of the channels, or of the batch")(site)
    return follow(site)


def _link_resize(site: Site) -> Ids:
    if site.operation.config["data_format"] == "channels_first":
        return freeze("it takes the first axis for the channels")(site)
    return _link_filled(site)


def _link_with(*names: str) -> Callable[[Site], Ids]:
    """Follows, where these settings are one number for all channels."""

    def link(site: Site) -> Ids:
        if any(np.size(site.operation.config[name]) > 1 for name in names):
            return freeze("it has a constant per channel")(site)
        return follow(site)

    return link


_link_filled = _link_with("fill_value")


def _link_concatenate(site: Site) -> Ids:
    rank = len(site.output_shape)
    if site.operation.config["axis"] in (-1, rank - 1):
        if sum(map(len, site.inputs)) != site.size:
            return freeze("it joins a constant to the channels")(site)
        return np.concatenate(site.inputs)
    return _link_merge(site)


def _link_layout(site: Site) -> Ids:
    """Flatten and Reshape: element f of an example, counted along, has channel f mod channels.

    So the channel of an output position is known where the last axis of the output is a multiple
    of the last axis of the input.
    """
    ids = site.inputs[0]
    if site.size % len(ids):
        return freeze("it splits the channels over several axes")(site)
    return np.tile(ids, site.size // len(ids))


def _cut_shape(name: str) -> Any:
    def cut(operation: Operation, inputs: Sequence[Ids], output: Ids) -> Cut:
        shape = list(operation.config[name])
        if not shape:
            return Cut()
        # A dimension that stands as -1 beside the channels is found from what is left over.
        shape[-1] = shape[-1] if shape[-1] == -1 else len(output)
        return Cut({name: tuple(shape)})

    return cut


_MERGE = Rule(_link_merge)
_DIVIDE = Rule(_link_divide)
_CONCATENATE = Rule(_link_concatenate)
_REDUCTION = Rule(_link_reduction)

CHANNEL_RULES: dict[str, Rule] = {
    **{f"layers.{name}": Rule(follow) for name in _FOLLOWING_LAYERS.split()},
    **{f"ops.{name}": Rule(follow) for name in _FOLLOWING_OPERATIONS.split()},
    **{kind: Rule(freeze(reason)) for kind, reason in _STAYING.items()},
    **{f"layers.{name}": _MERGE for name in ("Average", *_ELEMENTWISE)},
    **{f"ops.{name}": _MERGE for name in _ELEMENTWISE},
    **{f"ops.{name}": _REDUCTION for name in ("Mean", "Sum", "Max", "Min")},
    "layers.BatchNormalization": Rule(_link_batch_norm, _cut_batch_norm),
    "layers.GroupNormalization": Rule(_link_group_norm, _cut_group_norm),
    "layers.Dropout": Rule(follow, _cut_dropout),
    "layers.PReLU": Rule(follow, _cut_prelu),
    "layers.Rescaling": Rule(_link_rescaling),
    "layers.Resizing": Rule(_link_filled),
    "layers.Activation": Rule(_link_activation),
    "layers.Concatenate": _CONCATENATE,
    "layers.Flatten": Rule(_link_layout),
    "layers.Reshape": Rule(_link_layout, _cut_shape("target_shape")),
    "ops.Clip": Rule(_link_with("x_min", "x_max")),
    "ops.Concatenate": _CONCATENATE,
    "ops.Divide": _DIVIDE,
    "ops.ExpandDims": Rule(_link_expand),
    "ops.GetItem": Rule(_link_slice),
    "ops.Pad": Rule(_link_pad),
    "ops.Power": Rule(_link_power),
    "ops.Resize": Rule(_link_resize),
    "ops.Squeeze": Rule(_link_squeeze),
    "ops.TrueDivide": _DIVIDE,
    "ops.Reshape": Rule(_link_layout, _cut_shape("newshape")),
    "applications.CustomScaleLayer": _MERGE,
    "applications.LayerScale": Rule(follow, _cut_layer_scale),
    "applications.StochasticDepth": Rule(follow),
}
