"""The rule of each kind of layer: how it relates its input channels to its output channels.

    Rule
    |-- link         a call of the layer -> the id of each output channel
    |-- prune        indices of the channels kept -> new configuration, slices of the weights
    |-- macs         multiply-accumulates of a call
    `-- filter_axes  weight name -> axis of the filters, for layers that make new channels

Channels with one id are the same channel. `link` passes on the ids of its input where the layer
treats each channel alone (BatchNormalization), makes new ids where filters make new channels
(Conv2D), joins ids that must be removed together (Add), and protects ids that must stay. A layer
without a rule protects all its channels. The rules of Keras' layers are in `filter_rules` and
`channel_rules`; `registry` looks them up and accepts those of custom layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kpipe.errors import PruneError
from kpipe.prune.graph.model_graph import Call, Operation
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = [
    "CHANNELWISE_ACTIVATIONS",
    "ChannelConstraints",
    "ChannelIds",
    "Kept",
    "LayerCall",
    "LayerChange",
    "MovedChannels",
    "Rule",
    "link_merge",
    "new_channels",
    "positions",
    "protect_channels",
    "protect_if_mixed",
    "same_channels",
    "unchanged",
]

ChannelIds = np.ndarray
Kept = np.ndarray  # indices of the channels kept
Shape = tuple[int | None, ...]


class ChannelConstraints:
    """Constraints on channel ids, collected from the rules of all layers.

    Example:
        >>> from kpipe.prune import ChannelConstraints
        >>> constraints = ChannelConstraints()
        >>> left, right = constraints.new_ids(2), constraints.new_ids(2)
        >>> constraints.join(left, right)
        >>> constraints.protect(right[1:], "softmax", "it mixes the channels")
        >>> right
        array([2, 3])
    """

    def __init__(self) -> None:
        self.count = 0
        self.joined: list[tuple[ChannelIds, ChannelIds]] = []
        self.protected: list[tuple[ChannelIds, str, str]] = []

    def new_ids(self, size: int) -> ChannelIds:
        """Return ids that no other channel has, (size,)."""
        self.count += size
        return np.arange(self.count - size, self.count)

    def join(self, first: ChannelIds, second: ChannelIds) -> None:
        """Keep or remove `first[i]` and `second[i]` together, for every i."""
        self.joined.append((first, second))

    def protect(self, ids: ChannelIds, name: str, reason: str) -> None:
        """Never remove these channels; the operation `name` is the cause."""
        self.protected.append((ids, name, reason))


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer or raw operation, the argument of a rule's `link`.

    Args:
        operation: the layer or raw operation.
        node: the call in the model's graph.
        inputs: one array of channel ids per input tensor.
        input_shapes: their shapes, with the batch axis.
        output_shapes: the shapes of the output tensors, with the batch axis.
        constraints: where `link` joins and protects channels.
        input_axes: the axis of each input's channels, counted from the end; -1 unless the rule
            takes any axis.

    Example:
        >>> from kpipe.prune import LayerCall, Rule
        >>> def link_pairs(call: LayerCall):
        ...     first, second = call.inputs
        ...     call.constraints.join(first, second)
        ...     return first
        >>> rule = Rule(link_pairs)
    """

    operation: Operation
    node: Call
    inputs: Sequence[ChannelIds]
    input_shapes: Sequence[Shape]
    output_shapes: Sequence[Shape]
    constraints: ChannelConstraints
    input_axes: Sequence[int] = ()

    @property
    def output_shape(self) -> Shape:
        """The shape of the first output tensor, with the batch axis."""
        return self.output_shapes[0]

    @property
    def size(self) -> int:
        """Number of output channels, over all outputs."""
        return sum(shape[-1] or 0 if len(shape) > 1 else 1 for shape in self.output_shapes)

    def protect(self, ids: ChannelIds, reason: str) -> None:
        """Protect channels because of this operation."""
        self.constraints.protect(ids, self.operation.name, reason)


@dataclass(frozen=True)
class LayerChange:
    """What changes in a layer when channels are removed.

    Args:
        config: constructor arguments and their new values.
        weights: weight name -> {axis: indices kept}; empty for a weight that stays whole. A layer
            with a weight that is not listed is protected, because its rule does not know it.
        arguments: place of a positional argument of the calls -> its new value.

    Example:
        >>> from kpipe.prune import LayerChange
        >>> kept = [0, 2, 3]
        >>> LayerChange({"filters": 3}, {"kernel": {-1: kept}, "bias": {0: kept}}).config
        {'filters': 3}
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, Mapping[int, Kept]] = field(default_factory=dict)
    arguments: Mapping[int, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MovedChannels:
    """Channels on another axis than the last, as `link` returns them.

    Args:
        ids: of the channels.
        axis: counted from the end, such as -2.
    """

    ids: ChannelIds
    axis: int


def unchanged(operation: Operation, inputs: Sequence[Kept], output: Kept) -> LayerChange:
    """Return an empty change, for layers that do not depend on the number of channels."""
    return LayerChange()


@dataclass(frozen=True)
class Rule:
    """How one kind of layer treats channels.

    Args:
        link: (call) -> ids of the output channels; of several outputs, one after the other.
        prune: (operation, indices kept of each input, indices kept of the output) ->
            `LayerChange`.
        macs: (operation, input positions, output positions, input channels, output channels) ->
            multiply-accumulates of one call on one image, where positions is height * width; None
            for a layer that is not counted.
        filter_axes: weight name -> axis of the output channels, for the criteria.
        any_axis: whether `link` takes channels on another axis than the last.

    Example:
        >>> from kpipe.prune import LayerChange, Rule, same_channels
        >>> def prune(operation, inputs, output):
        ...     return LayerChange({}, {"gamma": {0: output}})
        >>> rule = Rule(same_channels, prune)  # a layer with one `gamma` for each channel
    """

    link: Callable[[LayerCall], ChannelIds | MovedChannels]
    prune: Callable[[Operation, Sequence[Kept], Kept], LayerChange] = unchanged
    macs: Callable[[Operation, int, int, int, int], int] | None = None
    filter_axes: Mapping[str, int] = field(default_factory=dict)
    any_axis: bool = False


def same_channels(call: LayerCall) -> ChannelIds:
    """Link each output channel to the same input channel; protect other inputs, such as a mask.

    Example:
        >>> from kpipe.prune import Rule, same_channels
        >>> rule = Rule(same_channels)  # a layer without weights that treats each channel alone
    """
    for ids in call.inputs[1:]:
        call.protect(ids, "it is read beside the channels")
    return call.inputs[0]


def new_channels(call: LayerCall) -> ChannelIds:
    """Link the output channels to new ids: filters make them.

    Example:
        >>> from kpipe.prune import LayerChange, Rule, new_channels
        >>> def prune(operation, inputs, output):
        ...     return LayerChange({"units": len(output)}, {"w": {0: inputs[0], 1: output}})
        >>> rule = Rule(new_channels, prune, filter_axes={"w": 1})  # a custom dense layer
    """
    return call.constraints.new_ids(call.size)


@names_wrong_kinds
def protect_channels(reason: str) -> Callable[[LayerCall], ChannelIds]:
    """Return a `link` that protects all input and output channels.

    Example:
        >>> from kpipe.prune import Rule, protect_channels
        >>> rule = Rule(protect_channels("it normalizes over the channels"))
    """

    def link(call: LayerCall) -> ChannelIds:
        output = new_channels(call)
        for ids in (*call.inputs, output):
            call.protect(ids, reason)
        return output

    return link


def link_merge(call: LayerCall) -> ChannelIds:
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


_CHANNELWISE = """
    celu elu exponential gelu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu
    linear log_sigmoid mish relu relu6 selu sigmoid silu soft_shrink softplus softsign sparse_plus
    sparse_sigmoid squareplus swish tanh tanh_shrink
"""
CHANNELWISE_ACTIVATIONS = frozenset(_CHANNELWISE.split())
_ACTIVATION_LAYERS = frozenset({"ReLU", "LeakyReLU", "ELU"})


def _mixing_activation(activation: Any) -> str:
    """The name of an activation that is not known to treat each channel alone, else ""."""
    if isinstance(activation, dict):
        custom = str(activation.get("module")).partition(".")[0] != "keras"
        known = activation.get("class_name") in _ACTIVATION_LAYERS and not custom
        named = activation.get("config"), activation.get("class_name")  # a function, a layer
        return "" if known else next(str(name) for name in named if not isinstance(name, dict))
    known = activation is None or activation in CHANNELWISE_ACTIVATIONS
    return "" if known else str(activation)


def protect_if_mixed(call: LayerCall, ids: ChannelIds) -> ChannelIds:
    """Return the ids, protected if the layer's own activation mixes channels (softmax)."""
    mixing = _mixing_activation(call.operation.config.get("activation"))
    if mixing:
        call.protect(ids, f"the activation {mixing!r} is not known to treat each channel alone")
    return ids


def positions(shape: Shape) -> int:
    """Return the spatial positions of a shape (None, height, width, channels): height * width.

    Raises:
        PruneError: the image size is not fixed.
    """
    if None in shape[1:]:
        raise PruneError(
            "multiply-accumulates need a fixed image size",
            received=f"a tensor of shape {shape}",
            fix="build the model with an input shape such as (224, 224, 3)",
        )
    return math.prod(int(size or 0) for size in shape[1:-1])
