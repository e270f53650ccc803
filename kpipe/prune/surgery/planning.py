"""Plan and carry out the exact removal of filters.

    remove      {layer: output channels}            the request
    Plan.kept   {layer: output channels that stay}  the same for every operation that it affects
    new model   weights[..., kept inputs, kept outputs]

Exact means: each operation of the new model outputs what the old one outputs on the kept channels
if every operation of the old model is masked outside `Plan.kept`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from kpipe.errors import PruneError, nearest
from kpipe.prune.dependencies.dependency_graph import DependencyGraph, build_dependencies
from kpipe.prune.dependencies.linking import change_of, reads_channels
from kpipe.prune.dependencies.macs import kept_width, mac_terms, warn_uncounted
from kpipe.prune.dependencies.rules import LayerChange
from kpipe.prune.graph.model_graph import Graph
from kpipe.prune.surgery.rebuilding import rebuild
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = [
    "Plan",
    "apply_plan",
    "count_kept_params",
    "flat_copy",
    "plan",
    "plan_units",
    "remove_filters",
    "units_of",
]

ChannelIndices = Sequence[int] | np.ndarray


@dataclass(frozen=True)
class Plan:
    """What a removal keeps, and what the model costs before and after.

    Args:
        kept: name of a layer or raw operation -> sorted output channels that stay, (kept,) int64,
            for every operation that loses output channels. Channels of a flattened output are its
            positions. Those of several outputs follow each other. An operation that moves the
            channels to another axis, such as Permute, loses them there.
        protected: layer name -> why its filters must stay.
        macs_before: multiply-accumulates of the model; None if the image size is not fixed.
        macs_after: multiply-accumulates after the removal.
        params_before: parameters of the model, trainable or not.
        params_after: parameters after the removal.

    Example:
        >>> import keras
        >>> from kpipe.prune import plan
        >>> layers = [keras.layers.Dense(4, name="hidden"), keras.layers.Dense(2, name="logits")]
        >>> model = keras.Sequential([keras.Input((3,)), *layers])
        >>> removal = plan(model, {"hidden": [1]})
        >>> removal.params_before, removal.params_after
        (26, 20)
        >>> removal.protected["logits"]
        'a model output'
    """

    kept: dict[str, np.ndarray]
    protected: dict[str, str]
    macs_before: int | None
    macs_after: int | None
    params_before: int
    params_after: int


@names_wrong_kinds
def plan(
    model: keras.Model, remove: Mapping[str, ChannelIndices], *, ignored_layers: Iterable[str] = ()
) -> Plan:
    """Extend a request to all channels that must be removed with it.

    Args:
        model: a built Functional or Sequential model; nested models are opened.
        remove: name of a layer or raw operation -> output channels to remove.
        ignored_layers: layers whose output channels must stay.

    Raises:
        PruneError: unknown layers or channels, protected channels, or layers that would lose all
            channels; the message names all of them.

    Warns:
        UserWarning: layers whose multiply-accumulates no rule counts; they count as 0.

    Example:
        >>> import keras
        >>> from kpipe.prune import plan
        >>> conv = keras.layers.Conv2D(4, 3, name="conv")
        >>> bn = keras.layers.BatchNormalization(name="bn")
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), conv, bn, keras.layers.Conv2D(2, 1)])
        >>> plan(model, {"conv": [0, 2]}).kept
        {'conv': array([1, 3]), 'bn': array([1, 3])}
    """
    dependencies = build_dependencies(model, ignored_layers)
    warn_uncounted(dependencies.graph)
    return plan_units(dependencies, units_of(dependencies, remove))


def plan_units(dependencies: DependencyGraph, removed: np.ndarray) -> Plan:
    """Plan the removal of the units in the mask `removed`, (units,) bool.

    Raises:
        PruneError: a layer would lose all channels.
    """
    graph = dependencies.graph
    kept, units = _kept(dependencies, removed), dependencies.units.__getitem__
    empty = [
        repr(operation.name)
        for operation in graph.operations
        if any(len(u) and removed[u].all() for u in map(units, operation.calls[0].outputs))
    ]
    if empty:
        raise PruneError(
            f"no channel would be left of {', '.join(empty)}",
            expected="at least one channel kept in every layer",
            fix="keep a channel of each of them, and of the layers joined with them",
        )
    fixed = all(None not in shape[1:] for shape in graph.shapes)
    terms = mac_terms(graph) if fixed else []
    width = kept_width(dependencies, removed)
    return Plan(
        kept,
        dependencies.protected,
        sum(term.macs(graph.channels) for term in terms) if fixed else None,
        sum(term.macs(width) for term in terms) if fixed else None,
        _count_params(dependencies, {}),
        _count_params(dependencies, kept),
    )


def units_of(dependencies: DependencyGraph, remove: Mapping[str, ChannelIndices]) -> np.ndarray:
    """Return the mask of the units that hold the channels of a request, (units,) bool.

    Raises:
        PruneError: unknown layers or channels, or protected channels.
    """
    known = {operation.name: operation for operation in dependencies.graph.operations}
    removed = dependencies.nothing()
    faults: list[str] = []
    for name, channels in remove.items():
        if name not in known:
            faults.append(f"there is no layer {name!r} ({nearest(name, known)})")
            continue
        units, indices = dependencies.output_units(known[name]), np.asarray(channels)
        if indices.size and (indices.ndim != 1 or indices.dtype.kind not in "iu"):
            faults.append(f"the channels of {name!r} are not a list of integers")
            continue
        indices = indices.astype(np.int64)
        outside = indices[(indices < 0) | (indices >= len(units))]
        if len(outside):
            faults.append(f"{name!r} has {len(units)} channels, not {outside.tolist()}")
            continue
        stuck = indices[dependencies.locked[units[indices]]]
        if len(stuck):
            reason = dependencies.protected.get(
                name, "they are joined with channels that must stay"
            )
            faults.append(f"channels {stuck.tolist()} of {name!r} are protected: {reason}")
            continue
        removed[units[indices]] = True
    if faults:
        raise PruneError(
            "channels cannot be removed: " + "; ".join(faults),
            expected="{name of a layer: [output channel, ...]} of filters that can be removed",
            fix="kpipe.prune.rank(model) lists the layers and their channels",
        )
    return removed


def _changes(
    dependencies: DependencyGraph, kept: Mapping[str, np.ndarray]
) -> dict[str, LayerChange]:
    """Name of each operation -> what changes in it."""
    graph, units, axes = dependencies.graph, dependencies.units, dependencies.axes
    stays: dict[int, np.ndarray] = {}
    for operation in graph.operations:
        for call in operation.calls:
            start = 0  # the channels of several outputs follow each other
            for tensor in call.outputs:
                end = start + len(units[tensor])
                stays[tensor] = np.arange(len(units[tensor]))
                if operation.name in kept:
                    indices = kept[operation.name]
                    stays[tensor] = indices[(indices >= start) & (indices < end)] - start
                start = end
    changes = {}
    for operation in graph.operations:
        call = operation.calls[0]
        inputs = [
            stays[t] if reads_channels(operation, axes[t]) else np.arange(graph.channels(t))
            for t in call.inputs
        ]
        whole = np.arange(sum(len(units[tensor]) for tensor in call.outputs))
        affected = operation.name in kept or any(
            len(stays[tensor]) < len(units[tensor]) for tensor in call.inputs
        )
        output = kept.get(operation.name, whole)
        changes[operation.name] = (
            change_of(operation, inputs, output) if affected else LayerChange()
        )
    return changes


def _count_params(dependencies: DependencyGraph, kept: Mapping[str, np.ndarray]) -> int:
    total = 0
    changes = _changes(dependencies, kept)
    for operation in dependencies.graph.operations:
        for name, shape in operation.weights.items():
            sizes = list(shape)
            for axis, indices in changes[operation.name].weights.get(name, {}).items():
                sizes[axis] = len(indices)
            total += math.prod(sizes)
    return total


def count_kept_params(dependencies: DependencyGraph, removed: np.ndarray) -> int:
    """Return the number of parameters left without the units in the mask `removed`, (units,)."""
    return _count_params(dependencies, _kept(dependencies, removed))


def _kept(dependencies: DependencyGraph, removed: np.ndarray) -> dict[str, np.ndarray]:
    """Name of each operation that loses channels -> the channels that stay."""
    kept = {}
    for operation in dependencies.graph.operations:
        stays = ~removed[dependencies.output_units(operation)]
        if not stays.all():
            kept[operation.name] = np.flatnonzero(stays)
    return kept


@names_wrong_kinds
def remove_filters(model: keras.Model, plan: Plan) -> keras.Model:
    """Return a new model without the filters that a plan removes.

    The new model is an ordinary flat Functional model: layers keep their names, weights, dtype
    policies and trainable flags, and nested models are opened. It shares nothing with the old
    model, which still predicts. It is not compiled, because an optimizer's state belongs to the old
    weights.

    Args:
        model: the model that the plan was made for.
        plan: what to keep; a plan that removes nothing gives a copy.

    Raises:
        PruneError: the plan was made for another model, or a layer cannot be rebuilt.

    Example:
        >>> import keras
        >>> from kpipe.prune import plan, remove_filters
        >>> layers = [keras.layers.Dense(4, name="hidden"), keras.layers.Dense(2)]
        >>> model = keras.Sequential([keras.Input((3,)), *layers])
        >>> remove_filters(model, plan(model, {"hidden": [1]})).get_layer("hidden").units
        3
    """
    dependencies = build_dependencies(model)
    _check_fits(dependencies, plan)
    return apply_plan(dependencies, plan)


def apply_plan(dependencies: DependencyGraph, plan: Plan) -> keras.Model:
    """Return what `remove_filters` returns, for a model that is already read."""
    graph = dependencies.graph
    return rebuild(graph, dependencies.model.name, _changes(dependencies, plan.kept), {})


def flat_copy(model: keras.Model, graph: Graph) -> keras.Model:
    """Return a flat copy of a model that is already read, not compiled."""
    return rebuild(graph, model.name, {}, {})


def _check_fits(dependencies: DependencyGraph, plan: Plan) -> None:
    operations = dependencies.graph.operations
    widths = {operation.name: len(dependencies.output_units(operation)) for operation in operations}
    wrong = [
        repr(name)
        for name, kept in plan.kept.items()
        if name not in widths or not len(kept) or kept[-1] >= widths[name]
    ]
    params = _count_params(dependencies, {})
    if wrong or params != plan.params_before:
        raise PruneError(
            "the plan was made for another model",
            expected=f"a model of {plan.params_before:,} parameters with the layers of the plan",
            received=f"a model of {params:,} parameters"
            + (f"; layers that do not fit: {', '.join(wrong)}" if wrong else ""),
            fix="call kpipe.prune.plan on this model",
        )
