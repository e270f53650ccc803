"""Apply the rule of every call of a graph: an id for each channel of each tensor.

call -> rule -> ids of the outputs, one output after the other
rule that cannot read what a call gives it -> all channels of the call are protected
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kpipe.errors import PruneError
from kpipe.prune.dependencies.registry import rule_of
from kpipe.prune.dependencies.rules import (
    ChannelConstraints,
    ChannelIds,
    Kept,
    LayerCall,
    LayerChange,
    MovedChannels,
    Rule,
    protect_channels,
)
from kpipe.prune.graph.model_graph import Call, Graph, Operation

__all__ = ["change_of", "link_channels", "reads_channels"]

_WRAPPER = "layers.TimeDistributed"
_CLOSED = (
    "it cannot be opened: the network has masks, a size is not fixed, or a layer inside has no "
    "graph or the name of another layer"
)


def change_of(operation: Operation, inputs: list[Kept], output: Kept) -> LayerChange:
    """Return what changes in an operation; nothing if it has no rule and so loses no channel."""
    rule = rule_of(operation)
    return LayerChange() if rule is None else rule.prune(operation, inputs, output)


def reads_channels(operation: Operation, axis: int) -> bool:
    """Return whether an operation reads the channels on an axis, not the positions on the last."""
    rule = rule_of(operation)
    return axis == -1 or (rule is not None and rule.any_axis)


def link_channels(
    graph: Graph, constraints: ChannelConstraints
) -> tuple[list[ChannelIds], tuple[int, ...]]:
    """Return the channel ids of every tensor, and the axis they are on, counted from the end."""
    ids: list[ChannelIds] = [np.empty(0, np.int64)] * len(graph.shapes)
    axes = [-1] * len(graph.shapes)
    for place, use in graph.order:
        operation = graph.operations[place]
        node = operation.calls[use]
        call = LayerCall(
            operation,
            node,
            [ids[tensor] for tensor in node.inputs],
            [graph.shapes[tensor] for tensor in node.inputs],
            [graph.shapes[tensor] for tensor in node.outputs],
            constraints,
            [axes[tensor] for tensor in node.inputs],
        )
        made = _link_call(call)
        axis = made.axis if isinstance(made, MovedChannels) else -1
        flat = made.ids if isinstance(made, MovedChannels) else made
        ends = np.cumsum([_channels(shape, axis) for shape in call.output_shapes])
        for tensor, part in zip(node.outputs, np.split(flat, ends[:-1]), strict=True):
            ids[tensor], axes[tensor] = part, axis
        if use:
            _join_calls(operation, node, ids, constraints)
    return ids, tuple(axes)


def _channels(shape: tuple[int | None, ...], axis: int) -> int:
    return shape[axis] or 0 if len(shape) > 1 else 1


def _link_call(call: LayerCall) -> ChannelIds | MovedChannels:
    operation = call.operation
    rule = rule_of(operation)
    if rule is None:
        reason = f"no rule says what {operation.kind} does to channels"
        reason += " (see kpipe.prune.register_rule)"
        return protect_channels(_CLOSED if operation.kind == _WRAPPER else reason)(call)
    if not all(reads_channels(operation, axis) for axis in call.input_axes):
        call = _with_positions(call)
    made = rule.link(call)
    if isinstance(made, MovedChannels):
        return made
    if len(made) != call.size:
        if len(call.output_shapes) > 1:
            return protect_channels("it has several outputs")(call)
        raise PruneError(
            f"the rule of {operation.kind} does not fit {operation.name!r}",
            expected=f"{call.size} channel ids",
            received=f"{len(made)}",
            fix="correct the `link` of the rule that was registered",
        )
    _protect_unknown_weights(call, rule, made)
    return made


def _with_positions(call: LayerCall) -> LayerCall:
    """Protect channels that a layer does not read as such, and the positions that it reads."""
    inputs, reason = [], "it reads them on another axis than the last"
    for ids, axis, shape in zip(call.inputs, call.input_axes, call.input_shapes, strict=True):
        read = ids if axis == -1 else call.constraints.new_ids(_channels(shape, -1))
        if axis != -1:
            call.protect(ids, reason)
            call.protect(read, reason)
        inputs.append(read)
    return replace(call, inputs=inputs, input_axes=[-1] * len(inputs))


def _protect_unknown_weights(call: LayerCall, rule: Rule, made: ChannelIds) -> None:
    operation = call.operation
    if not operation.weights:
        return
    whole = [np.arange(len(ids)) for ids in call.inputs]
    known = rule.prune(operation, whole, np.arange(call.size)).weights
    unknown = sorted(set(operation.weights) - set(known))
    if unknown:
        reason = f"its rule does not know its weights {', '.join(unknown)}"
        if getattr(operation.source, "quantization_mode", None):
            reason = "it is quantized; remove filters before quantization"
        elif getattr(operation.source, "lora_enabled", False):
            reason = "it has LoRA weights; merge them into its kernel first"
        for protected in (*call.inputs, made):
            call.protect(protected, reason)


def _join_calls(
    operation: Operation, call: Call, ids: list[ChannelIds], constraints: ChannelConstraints
) -> None:
    """Join the channels of a layer's first call and a later one: they share the weights."""
    first = operation.calls[0]
    counts = [(len(used.inputs), len(used.outputs)) for used in (first, call)]
    if counts[0] != counts[1]:
        for tensor in (*first.inputs, *first.outputs, *call.inputs, *call.outputs):
            reason = "it is used on different numbers of tensors"
            constraints.protect(ids[tensor], operation.name, reason)
        return
    pairs = list(zip(first.outputs, call.outputs, strict=True))
    if operation.weights or operation.kind == "ops.GetItem":  # its slice counts input channels
        pairs += list(zip(first.inputs, call.inputs, strict=True))
    for ours, theirs in pairs:
        if len(ids[ours]) == len(ids[theirs]):
            constraints.join(ids[ours], ids[theirs])
            continue
        for tensor in (ours, theirs):
            reason = "it is used on tensors of different numbers of channels"
            constraints.protect(ids[tensor], operation.name, reason)
