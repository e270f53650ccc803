"""The words in which each kind of layer states, in one place, what it does to channels.

    Rule
    |-- link     where the channels of a call's output come from -> an id per output channel
    |-- cut      what changes when channels go: configuration, positions kept per axis of a weight
    |-- macs     multiply-accumulates of a call
    `-- filters  weight name -> the axis of its output channels, where the kind makes new channels

A channel id stands for one thing that is there or gone: `link` hands on the ids of its input where
the channel is the same (batch normalization), makes new ones where filters make new channels
(convolution), joins ids that must go together (addition), and freezes those that must stay. A kind
without a rule is frozen whole, by name and reason. The rules of Keras' layers are in `filter_rules`
and `channel_rules`; `registry` finds them and takes those of one's own layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kpipe.errors import PruneError
from kpipe.prune.graph.model_graph import Call, Operation

__all__ = [
    "CHANNELWISE_ACTIVATIONS",
    "Channels",
    "Cut",
    "Ids",
    "Rule",
    "Site",
    "activated",
    "follow",
    "freeze",
    "fresh",
    "no_cut",
    "positions",
]

Ids = np.ndarray
Shape = tuple[int | None, ...]


class Channels:
    """The facts that rules state about channel ids: made, joined, frozen."""

    def __init__(self) -> None:
        self.count = 0
        self.joined: list[tuple[Ids, Ids]] = []
        self.frozen: list[tuple[Ids, str, str]] = []

    def make(self, size: int) -> Ids:
        """New ids, one per channel."""
        self.count += size
        return np.arange(self.count - size, self.count)

    def join(self, first: Ids, second: Ids) -> None:
        """States that channels of the same position are kept or removed together."""
        self.joined.append((first, second))

    def freeze(self, ids: Ids, name: str, reason: str) -> None:
        """States that channels must stay, because of the operation `name`."""
        self.frozen.append((ids, name, reason))


@dataclass(frozen=True)
class Site:
    """One call of an operation, as `link` sees it.

    Args:
        operation: what is called.
        call: this use of it.
        inputs: one array of channel ids per tensor read.
        input_shapes: their shapes, with the batch axis.
        output_shape: the shape of the (first) tensor made, with the batch axis.
        channels: where facts are stated.
    """

    operation: Operation
    call: Call
    inputs: Sequence[Ids]
    input_shapes: Sequence[Shape]
    output_shape: Shape
    channels: Channels

    @property
    def size(self) -> int:
        """Channels of the output."""
        return self.output_shape[-1] or 0 if len(self.output_shape) > 1 else 1


@dataclass(frozen=True)
class Cut:
    """What changes in an operation when channels go.

    Args:
        config: constructor arguments and their new values.
        weights: weight name -> {axis: positions kept}; a weight that stays whole has an empty one.
            A layer that holds a weight not named here is protected: its rule does not know it.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, Mapping[int, np.ndarray]] = field(default_factory=dict)


def no_cut(operation: Operation, inputs: Sequence[np.ndarray], output: np.ndarray) -> Cut:
    """Nothing in the operation depends on its number of channels."""
    return Cut()


@dataclass(frozen=True)
class Rule:
    """How one kind of layer treats channels.

    Args:
        link: (site) -> ids of the output's channels.
        cut: (operation, positions kept of each input, positions kept of the output) -> `Cut`.
        macs: (operation, input spots, output spots, input channels, output channels) -> multiply-
            accumulates of one call on one example, where spots is height * width; None where the
            kind is not counted.
        filters: weight name -> axis of the output channels, for the criteria.
    """

    link: Callable[[Site], Ids]
    cut: Callable[[Operation, Sequence[np.ndarray], np.ndarray], Cut] = no_cut
    macs: Callable[[Operation, int, int, int, int], int] | None = None
    filters: Mapping[str, int] = field(default_factory=dict)


def follow(site: Site) -> Ids:
    """The output has the channels of the input; what is read beside it, such as a mask, stays."""
    for ids in site.inputs[1:]:
        site.channels.freeze(ids, site.operation.name, "it is read beside the channels")
    return site.inputs[0]


def fresh(site: Site) -> Ids:
    """Filters make new channels."""
    return site.channels.make(site.size)


def freeze(reason: str) -> Callable[[Site], Ids]:
    """A link by which every channel that goes in or comes out must stay."""

    def link(site: Site) -> Ids:
        made = site.channels.make(site.size)
        for ids in (*site.inputs, made):
            site.channels.freeze(ids, site.operation.name, reason)
        return made

    return link


_CHANNELWISE = """
    celu elu exponential gelu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu
    linear log_sigmoid mish relu relu6 selu sigmoid silu soft_shrink softplus softsign sparse_plus
    sparse_sigmoid squareplus swish tanh tanh_shrink
"""
CHANNELWISE_ACTIVATIONS = frozenset(_CHANNELWISE.split())
_ACTIVATION_LAYERS = frozenset({"ReLU", "LeakyReLU", "ELU"})


def _mixing(activation: Any) -> str:
    """The name of an activation that is not known to treat each channel alone, else ""."""
    if isinstance(activation, dict):
        own = str(activation.get("module")).partition(".")[0] != "keras"
        known = activation.get("class_name") in _ACTIVATION_LAYERS and not own
        named = activation.get("config"), activation.get("class_name")  # a function, a layer
        return "" if known else next(str(name) for name in named if not isinstance(name, dict))
    known = activation is None or activation in CHANNELWISE_ACTIVATIONS
    return "" if known else str(activation)


def activated(site: Site, ids: Ids) -> Ids:
    """The ids, frozen where the layer's own activation mixes channels (softmax)."""
    mixing = _mixing(site.operation.config.get("activation"))
    if mixing:
        reason = f"the activation {mixing!r} is not known to treat each channel alone"
        site.channels.freeze(ids, site.operation.name, reason)
    return ids


def positions(shape: Shape) -> int:
    """Spatial positions of a shape (None, height, width, channels): height * width."""
    if None in shape[1:]:
        raise PruneError(
            "multiply-accumulates need a fixed image size",
            received=f"a tensor of shape {shape}",
            fix="build the model with an input shape such as (224, 224, 3)",
        )
    return math.prod(int(size or 0) for size in shape[1:-1])
