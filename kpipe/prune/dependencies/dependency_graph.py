"""Which channels must be removed together, derived from the rules of all layers.

    DependencyGraph
    |-- graph      the model as plain data
    |-- units      tensor number -> the unit of each channel, (channels,)
    |-- axes       tensor number -> the axis of the channels, counted from the end: -1 but for those
    |              that an operation moved
    |-- locked     unit -> whether it must stay
    |-- groups     units that appear in the same operations: (layer, units, members)
    `-- protected  layer name -> why its filters must stay

A unit is the smallest part of a model that can be removed: a channel and all channels joined to it.
Removing a unit removes a channel from each operation it appears in, so looking up the units of the
channels asked for gives everything that goes with them. A criterion ranks the units of one group
against each other, for example those of a residual stage, which the same convolutions make.

Source: the groups are those of DepGraph (Fang et al. 2023, arXiv 2301.12900).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import keras
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from kpipe.errors import PruneError, nearest
from kpipe.prune.dependencies.linking import link_channels
from kpipe.prune.dependencies.registry import rule_of
from kpipe.prune.dependencies.rules import ChannelConstraints, ChannelIds
from kpipe.prune.graph.graph_reading import read
from kpipe.prune.graph.model_graph import Graph, Operation

__all__ = ["DependencyGraph", "Group", "build_dependencies"]


@dataclass(frozen=True)
class Group:
    """Units that appear in the same operations, equally often.

    Args:
        name: its first layer, with "#2" and so on if that layer makes several groups. It does not
            change when some of the units are removed.
        layer: the first layer that makes the units.
        units: unit numbers, in the order of that layer's channels, (units,).
        members: layer name -> the output channels that it makes of each unit, (units, channels per
            unit), for every layer whose filters make these units.

    Example:
        >>> import keras
        >>> from kpipe.prune import rank
        >>> inputs = keras.Input((8, 8, 3))
        >>> x = keras.layers.Conv2D(4, 1, name="stem")(inputs)
        >>> x = keras.layers.Add()([x, keras.layers.Conv2D(4, 3, padding="same", name="conv")(x)])
        >>> x = keras.layers.GlobalAveragePooling2D()(x)
        >>> model = keras.Model(inputs, keras.layers.Dense(2)(x))
        >>> group = rank(model)["stem"].group
        >>> list(group.members), group.channels
        (['stem', 'conv'], array([0, 1, 2, 3]))
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
    """A model and the units of its channels; see the module's docstring."""

    model: keras.Model
    graph: Graph
    units: tuple[np.ndarray, ...]
    axes: tuple[int, ...]
    locked: np.ndarray
    groups: tuple[Group, ...]
    protected: dict[str, str]

    def output_units(self, operation: Operation) -> np.ndarray:
        """The unit of each output channel of an operation, (channels,).

        Those of several outputs follow each other.
        """
        return np.concatenate([self.units[tensor] for tensor in operation.calls[0].outputs])

    def nothing(self) -> np.ndarray:
        """A mask over all units that removes none, (units,) bool."""
        return np.zeros(len(self.locked), bool)


def build_dependencies(model: keras.Model, ignored_layers: Iterable[str] = ()) -> DependencyGraph:
    """Read a model, apply the rule of every operation, and find the units and groups.

    Args:
        model: a built Functional or Sequential model.
        ignored_layers: names of layers whose output channels must stay.

    Raises:
        PruneError: a model that cannot be read, or a name in `ignored_layers` that it lacks.
    """
    graph, constraints = read(model), ChannelConstraints()
    ids, axes = link_channels(graph, constraints)
    _protect(graph, ids, constraints, ignored_layers)
    units, causes = _solve(constraints)
    by_tensor, locked = tuple(units[i] for i in ids), causes >= 0
    return DependencyGraph(
        model,
        graph,
        by_tensor,
        axes,
        locked,
        _groups(graph, by_tensor, locked),
        _protected(graph, by_tensor, causes, constraints),
    )


def _protect(
    graph: Graph,
    ids: list[ChannelIds],
    constraints: ChannelConstraints,
    ignored_layers: Iterable[str],
) -> None:
    """Protect the model's outputs and the layers named; their reasons take precedence."""
    makers = graph.makers()
    found = [(ids[tensor], makers[tensor].name, "a model output") for tensor in graph.outputs]
    named = [ignored_layers] if isinstance(ignored_layers, str) else list(ignored_layers)
    known = {operation.name: operation for operation in graph.operations}
    unknown = [name for name in named if name not in known]
    if unknown:
        raise PruneError(
            f"ignored_layers names no layer of the model: {', '.join(map(repr, unknown))}",
            fix="; ".join(nearest(name, known) for name in unknown),
        )
    for name in named:
        found += [(ids[t], name, "listed in ignored_layers") for t in known[name].calls[0].outputs]
    constraints.protected[:0] = found


def _solve(constraints: ChannelConstraints) -> tuple[np.ndarray, np.ndarray]:
    """(id -> unit, unit -> index of the first constraint that protects it, or -1)."""
    pairs = constraints.joined or [(np.empty(0, np.int64), np.empty(0, np.int64))]
    first, second = (np.concatenate(side) for side in zip(*pairs, strict=True))
    size = constraints.count
    joined = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(size, size))
    count, units = connected_components(joined, directed=False)
    causes = np.full(count, -1)
    for number, (ids, _, _) in reversed(list(enumerate(constraints.protected))):
        causes[units[ids]] = number
    return units, causes


def _groups(graph: Graph, units: tuple[np.ndarray, ...], locked: np.ndarray) -> tuple[Group, ...]:
    # Units that appeared equally often in all operations so far share a signature. Each operation
    # splits the units in it by how often they appear there.
    signature, next_label = np.zeros(len(locked), np.int64), 1
    for operation in graph.operations:
        for tensor in operation.calls[0].outputs:
            held, counts = np.unique(units[tensor], return_counts=True)
            key = signature[held] * (counts.max(initial=0) + 1) + counts
            _, label = np.unique(key, return_inverse=True)
            signature[held] = next_label + label
            next_label += len(held)
    groups: dict[int, Group] = {}
    for operation in graph.operations:
        rule = rule_of(operation)
        if rule is None or not rule.filter_axes:
            continue
        made = units[operation.calls[0].outputs[0]]
        free = np.flatnonzero(~locked[made])
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
    order_of = {unit: place for place, unit in enumerate(members)}
    order = np.argsort([order_of[unit] for unit in made[where]], kind="stable")
    return where[order].reshape(len(members), -1)


def _protected(
    graph: Graph,
    units: tuple[np.ndarray, ...],
    causes: np.ndarray,
    constraints: ChannelConstraints,
) -> dict[str, str]:
    reasons: dict[str, str] = {}
    for _, name, reason in constraints.protected:
        reasons.setdefault(name, reason)
    for operation in graph.operations:
        rule = rule_of(operation)
        if rule is None or rule.macs is None or operation.name in reasons:
            continue
        made = causes[units[operation.calls[0].outputs[0]]]
        stuck = made[made >= 0]
        if len(stuck):
            _, cause, reason = constraints.protected[stuck[0]]
            some = "" if len(stuck) == len(made) else f"{len(stuck)} of {len(made)} channels: "
            reasons[operation.name] = f"{some}its channels reach {cause!r}: {reason}"
    return reasons
