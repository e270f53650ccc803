"""Rules of layers that rearrange channels: they join, split, reorder and move axes.

join        Concatenate, Stack
split       Split, slices
reorder     Permute, Transpose, Swapaxes, Moveaxis: the channels may move to another axis
reshape     Flatten, Reshape
other axes  ExpandDims, Squeeze

shuffle of g groups    (..., channels) -> (..., g, channels / g) -> (..., channels / g, g)
                       -> (..., channels): the same position of every group goes together
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
    MovedChannels,
    Rule,
    link_merge,
    protect_channels,
    same_channels,
)
from kpipe.prune.graph.model_graph import Operation

__all__ = ["LAYOUT_RULES"]

_POSITION = slice | int | np.integer


def _link_concatenate(call: LayerCall) -> ChannelIds:
    rank = len(call.output_shape)
    if call.operation.config["axis"] in (-1, rank - 1):
        if sum(map(len, call.inputs)) != call.size:
            return protect_channels("it joins a constant to the channels")(call)
        return np.concatenate(call.inputs)
    return link_merge(call)


def _link_slice(call: LayerCall) -> ChannelIds:
    """Follow slices of positions, and slices of channels that follow each other."""
    (_, key), rank = call.node.arguments[0], len(call.input_shapes[0])
    if rank < 2:
        return protect_channels("it takes some of the batch")(call)
    parts = list(key) if isinstance(key, tuple | list) else [key]
    if not all(x is None or x is Ellipsis or isinstance(x, _POSITION) for x in parts):
        return protect_channels("it takes channels or positions by more than numbers and slices")(
            call
        )
    missing = [slice(None)] * (rank - sum(part not in (None, Ellipsis) for part in parts))
    place = parts.index(Ellipsis) if Ellipsis in parts else len(parts)
    parts[place : place + 1] = missing
    if parts[-1] is None:
        return protect_channels("it moves the channels or the batch to another axis")(call)
    if not isinstance(parts[0], slice):
        return protect_channels("it takes some of the batch")(call)
    if not isinstance(parts[-1], slice):
        return protect_channels("it takes a single channel, without its axis")(call)
    if parts[-1].step not in (None, 1):
        return protect_channels("it takes every other channel, or in another order")(call)
    return call.inputs[0][parts[-1]]


def _prune_slice(operation: Operation, inputs: Sequence[Kept], output: Kept) -> LayerChange:
    call = operation.calls[0]
    key, size = call.arguments[0][1], call.input_shapes[0][-1]
    parts = key if isinstance(key, tuple | list) else (key,)
    axes = sum(part is not None for part in parts)
    reaches_last = axes == len(call.input_shapes[0]) or Ellipsis in parts
    if not reaches_last or parts[-1] is Ellipsis:
        return LayerChange()  # all channels
    start, stop, _ = parts[-1].indices(size)
    ends = (int(np.searchsorted(inputs[0], end)) for end in (start, stop))
    return LayerChange(arguments={1: (*parts[:-1], slice(*ends))})


def _link_split(call: LayerCall) -> ChannelIds:
    axis, rank = call.operation.config["axis"], len(call.input_shapes[0])
    if axis % rank == 0:
        return protect_channels("it takes some of the batch")(call)
    if axis % rank == rank - 1:
        return call.inputs[0]
    return np.tile(call.inputs[0], len(call.output_shapes))


def _prune_split(operation: Operation, inputs: Sequence[Kept], output: Kept) -> LayerChange:
    (shape,), ends = operation.calls[0].input_shapes, operation.config["indices_or_sections"]
    if operation.config["axis"] % len(shape) != len(shape) - 1:
        return LayerChange()
    if isinstance(ends, int):
        ends = np.arange(1, ends) * (int(shape[-1] or 0) // ends)
    places = np.searchsorted(inputs[0], ends)
    if not len(places):
        return LayerChange()  # a single part
    return LayerChange({"indices_or_sections": tuple(int(place) for place in places)})


def _link_stack(call: LayerCall) -> ChannelIds:
    rank = len(call.output_shape)
    if call.operation.config["axis"] % rank in (0, rank - 1):
        return protect_channels("it moves the channels or the batch to another axis")(call)
    return link_merge(call)


def _order(operation: Operation, rank: int) -> list[int]:
    """The axis of the input that becomes each axis of the output."""
    config, axes = operation.config, list(range(rank))
    if operation.kind == "layers.Permute":
        return [0, *config["dims"]]
    if operation.kind == "ops.Transpose":
        return [axis % rank for axis in config["axes"]] if config["axes"] else axes[::-1]
    if operation.kind == "ops.Swapaxes":
        first, second = (config[name] % rank for name in ("axis1", "axis2"))
        axes[first], axes[second] = second, first
        return axes
    ends = [np.atleast_1d(config[name]) for name in ("source", "destination")]
    lengths = np.empty(range(rank))  # each axis is as long as its number
    return list(np.moveaxis(lengths, *ends).shape)


def _link_permutation(call: LayerCall) -> ChannelIds | MovedChannels:
    rank = len(call.output_shape)
    order = _order(call.operation, rank)
    axis = order.index(rank + call.input_axes[0]) - rank
    if order[0] != 0:
        return protect_channels("it moves the batch to another axis")(call)
    return call.inputs[0] if axis == -1 else MovedChannels(call.inputs[0], axis)


def _link_layout(call: LayerCall) -> ChannelIds:
    """Flatten and Reshape: the elements of an image keep their order in memory.

    From the axis of the channels on, the input is one axis of `flat` channels, over and over. The
    channel of an output position is known if the last axis of the output is a multiple of that. If
    it is a fraction instead, the channels that come to the same position are joined.
    """
    ids, axis, size = call.inputs[0], call.input_axes[0], call.size
    inner = call.input_shapes[0][axis:][1:]
    if None in inner:
        return protect_channels("it lays out an axis of unknown size")(call)
    flat = np.repeat(ids, math.prod(int(length or 0) for length in inner))
    if size % len(flat) == 0:
        return np.tile(flat, size // len(flat))
    if len(flat) % size or inner or size == 1:
        return protect_channels("it lays the channels out over several axes")(call)
    rows = flat.reshape(-1, size)
    for row in rows[1:]:
        call.constraints.join(rows[0], row)
    return rows[0]


def _prune_shape(name: str) -> Any:
    def prune(operation: Operation, inputs: Sequence[Kept], output: Kept) -> LayerChange:
        shape = list(operation.config[name])
        if not shape:
            return LayerChange()
        # Keras computes a -1 in another dimension from the remaining elements.
        shape[-1] = shape[-1] if shape[-1] == -1 else len(output)
        return LayerChange({name: tuple(shape)})

    return prune


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


_CONCATENATE = Rule(_link_concatenate)
_PERMUTATION = Rule(_link_permutation, any_axis=True)

LAYOUT_RULES: dict[str, Rule] = {
    "layers.Concatenate": _CONCATENATE,
    "layers.Flatten": Rule(_link_layout, any_axis=True),
    "layers.Permute": _PERMUTATION,
    "layers.Reshape": Rule(_link_layout, _prune_shape("target_shape"), any_axis=True),
    "ops.Concatenate": _CONCATENATE,
    "ops.ExpandDims": Rule(_link_expand),
    "ops.GetItem": Rule(_link_slice, _prune_slice),
    "ops.Moveaxis": _PERMUTATION,
    "ops.Reshape": Rule(_link_layout, _prune_shape("newshape"), any_axis=True),
    "ops.Split": Rule(_link_split, _prune_split),
    "ops.Squeeze": Rule(_link_squeeze),
    "ops.Stack": Rule(_link_stack),
    "ops.Swapaxes": _PERMUTATION,
    "ops.Transpose": _PERMUTATION,
}
