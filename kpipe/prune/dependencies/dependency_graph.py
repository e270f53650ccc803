"""Channels that must go together, found from what the rules state.

    Coupling
    |-- units    tensor number -> the unit of each channel, (channels,)
    |-- frozen   unit -> must it stay?
    |-- groups   units that appear in the same operations: (layer, units, members)
    `-- protected  name -> why filters must stay

A unit is the smallest thing that can be removed: every channel that is joined to every other.
Removing a unit removes a channel from each operation it appears in, so a request is closed over its
group by nothing more than looking units up. A group is what a criterion ranks: the units of a
residual stage, for example, that are made by the same convolutions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from kpipe.errors import PruneError, nearest
from kpipe.prune.dependencies.registry import rule_of
from kpipe.prune.dependencies.rules import Channels, Cut, Site, freeze
from kpipe.prune.graph.model_graph import Call, Graph, Operation

__all__ = ["DependencyGraph", "Group", "build_dependencies", "cut_of"]


@dataclass(frozen=True)
class Group:
    """Units that appear in the same operations, equally often.

    Args:
        name: its first layer, with "#2" and so on where that layer makes several groups. It stays
            the same when some of the units are removed.
        layer: the first layer that makes them.
        units: their numbers, in the order of that layer's channels, (units,).
        members: layer name -> the output channels it makes for each unit, (units, channels per
            unit), for every layer whose filters make these units.
    """

    name: str
    layer: str
    units: np.ndarray
    members: dict[str, np.ndarray]

    @property
    def channels(self) -> np.ndarray:
        """Output channels of `layer`, the first of each unit, (units,)."""
        return self.members[self.layer][:, 0]


@dataclass(frozen=True)
class DependencyGraph:
    """A graph with the units of its channels; see the module's docstring."""

    graph: Graph
    units: tuple[np.ndarray, ...]
    frozen: np.ndarray
    groups: tuple[Group, ...]
    protected: dict[str, str]

    def output_units(self, operation: Operation) -> np.ndarray:
        """The unit of each output channel of an operation, (channels,)."""
        return self.units[operation.calls[0].outputs[0]]


def cut_of(operation: Operation, inputs: list[np.ndarray], output: np.ndarray) -> Cut:
    """What changes in an operation; nothing where it has no rule and so loses no channel."""
    rule = rule_of(operation)
    return Cut() if rule is None else rule.cut(operation, inputs, output)


def build_dependencies(graph: Graph, ignored_layers: Iterable[str] = ()) -> DependencyGraph:
    """Applies every operation's rule and finds the units and groups.

    Args:
        graph: the model as read.
        ignored_layers: names of layers whose output channels must stay.

    Raises:
        PruneError: `ignored_layers` names layers that the model does not have.
    """
    channels = Channels()
    ids = _link(graph, channels)
    _protect(graph, ids, channels, ignored_layers)
    units, frozen, because = _solve(channels)
    by_tensor = tuple(units[i] for i in ids)
    return DependencyGraph(
        graph,
        by_tensor,
        frozen,
        _groups(graph, by_tensor, frozen),
        _protected(graph, by_tensor, frozen, because, channels),
    )


def _link(graph: Graph, channels: Channels) -> list[np.ndarray]:
    """An array of channel ids for every tensor."""
    ids: list[np.ndarray] = [np.empty(0, np.int64)] * len(graph.shapes)
    for place, use in graph.order:
        operation = graph.operations[place]
        call = operation.calls[use]
        made = _link_call(graph, operation, call, ids, channels)
        for tensor, channel_ids in zip(call.outputs, made, strict=True):
            ids[tensor] = channel_ids
        if use:
            _join_calls(operation, call, ids, channels)
    return ids


def _link_call(
    graph: Graph, operation: Operation, call: Call, ids: list[np.ndarray], channels: Channels
) -> list[np.ndarray]:
    inputs = [ids[tensor] for tensor in call.inputs]
    sites = [
        Site(
            operation,
            call,
            inputs,
            [graph.shapes[tensor] for tensor in call.inputs],
            graph.shapes[output],
            channels,
        )
        for output in call.outputs
    ]
    rule = rule_of(operation)
    if rule is None:
        reason = f"no rule says what {operation.kind} does to channels (see kpipe.prune.register)"
        return [freeze(reason)(site) for site in sites]
    if len(sites) > 1:
        return [freeze("it has several outputs")(site) for site in sites]
    made = rule.link(sites[0])
    if len(made) != sites[0].size:
        raise PruneError(
            f"the rule of {operation.kind} does not fit {operation.name!r}",
            expected=f"{sites[0].size} channel ids",
            received=f"{len(made)}",
            fix="mend the link of the rule that was registered",
        )
    whole = [np.arange(len(ids)) for ids in inputs]
    known = rule.cut(operation, whole, np.arange(sites[0].size)).weights
    unknown = sorted(set(operation.weights) - set(known))
    if unknown:
        reason = f"its rule does not know its weights {', '.join(unknown)}"
        if getattr(operation.source, "quantization_mode", None):
            reason = "it is quantized, and filters are removed before that"
        for held in (*inputs, made):
            channels.freeze(held, operation.name, reason)
    return [made]


def _join_calls(
    operation: Operation, call: Call, ids: list[np.ndarray], channels: Channels
) -> None:
    """A layer used twice has one set of weights and one list of kept channels."""
    first = operation.calls[0]
    counts = [(len(used.inputs), len(used.outputs)) for used in (first, call)]
    if counts[0] != counts[1]:
        for tensor in (*first.inputs, *first.outputs, *call.inputs, *call.outputs):
            reason = "it is used on different numbers of tensors"
            channels.freeze(ids[tensor], operation.name, reason)
        return
    pairs = list(zip(first.outputs, call.outputs, strict=True))
    if operation.weights:
        pairs += list(zip(first.inputs, call.inputs, strict=True))
    for ours, theirs in pairs:
        if len(ids[ours]) == len(ids[theirs]):
            channels.join(ids[ours], ids[theirs])
            continue
        for tensor in (ours, theirs):
            reason = "it is used on tensors of different numbers of channels"
            channels.freeze(ids[tensor], operation.name, reason)


def _protect(
    graph: Graph, ids: list[np.ndarray], channels: Channels, ignored_layers: Iterable[str]
) -> None:
    """Freezes the model's outputs and the layers named, as the first reasons to be given."""
    makers = graph.makers()
    facts = [(ids[tensor], makers[tensor].name, "a model output") for tensor in graph.outputs]
    named = [ignored_layers] if isinstance(ignored_layers, str) else list(ignored_layers or ())
    known = {operation.name: operation for operation in graph.operations}
    unknown = [name for name in named if name not in known]
    if unknown:
        raise PruneError(
            f"ignored_layers names no layer of the model: {', '.join(map(repr, unknown))}",
            fix="; ".join(nearest(name, known) for name in unknown),
        )
    for name in named:
        facts += [(ids[t], name, "protected by name") for t in known[name].calls[0].outputs]
    channels.frozen[:0] = facts


def _solve(channels: Channels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(id -> unit, unit -> frozen?, unit -> the number of the fact that froze it first)."""
    pairs = channels.joined or [(np.empty(0, np.int64), np.empty(0, np.int64))]
    first, second = (np.concatenate(side) for side in zip(*pairs, strict=True))
    size = channels.count
    joined = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(size, size))
    count, units = connected_components(joined, directed=False)
    because = np.full(count, -1)
    for number, (ids, _, _) in reversed(list(enumerate(channels.frozen))):
        because[units[ids]] = number
    return units, because >= 0, because


def _groups(graph: Graph, units: tuple[np.ndarray, ...], frozen: np.ndarray) -> tuple[Group, ...]:
    # Units that no operation has told apart so far share a signature; each operation splits those
    # it holds by how often it holds them.
    signature, free_label = np.zeros(len(frozen), np.int64), 1
    for operation in graph.operations:
        for tensor in operation.calls[0].outputs:
            held, counts = np.unique(units[tensor], return_counts=True)
            key = signature[held] * (counts.max(initial=0) + 1) + counts
            _, label = np.unique(key, return_inverse=True)
            signature[held] = free_label + label
            free_label += len(held)
    groups: dict[int, Group] = {}
    for operation in graph.operations:
        rule = rule_of(operation)
        if rule is None or not rule.filters:
            continue
        made = units[operation.calls[0].outputs[0]]
        free = np.flatnonzero(~frozen[made])
        first_here = 0
        for key in np.unique(signature[made[free]]):
            where = free[signature[made[free]] == key]
            if key not in groups:
                first_here += 1
                name = operation.name + (f"#{first_here}" if first_here > 1 else "")
                _, order = np.unique(made[where], return_index=True)
                groups[key] = Group(name, operation.name, made[where[np.sort(order)]], {})
            groups[key].members[operation.name] = _places(made, where, groups[key].units)
    return tuple(groups.values())


def _places(made: np.ndarray, where: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Output channels of each member unit, (units, channels per unit)."""
    rank = {unit: place for place, unit in enumerate(members)}
    order = np.argsort([rank[unit] for unit in made[where]], kind="stable")
    return where[order].reshape(len(members), -1)


def _protected(
    graph: Graph,
    units: tuple[np.ndarray, ...],
    frozen: np.ndarray,
    because: np.ndarray,
    channels: Channels,
) -> dict[str, str]:
    reasons: dict[str, str] = {}
    for _, name, reason in channels.frozen:
        reasons.setdefault(name, reason)
    for operation in graph.operations:
        rule = rule_of(operation)
        if rule is None or rule.macs is None or operation.name in reasons:
            continue
        made = units[operation.calls[0].outputs[0]]
        stuck = frozen[made]
        if stuck.any():
            _, cause, reason = channels.frozen[because[made[stuck]][0]]
            share = "" if stuck.all() else f"{stuck.sum()} of {len(made)} channels: "
            reasons[operation.name] = f"{share}its channels reach {cause!r}: {reason}"
    return reasons
