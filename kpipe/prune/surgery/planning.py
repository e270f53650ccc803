"""Filters removed from a model, exactly.

    remove      {layer: output channels}            what is asked
    Plan.kept   {layer: output channels that stay}  what that means for every operation it touches
    new model   weights[..., kept of the input, kept of the output]

Exact means: each operation of the new model gives what the old one gives on the kept channels when
every operation of the old one is masked outside `Plan.kept`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from kpipe.errors import PruneError, nearest
from kpipe.prune.dependencies.dependency_graph import DependencyGraph, build_dependencies, cut_of
from kpipe.prune.dependencies.macs import kept_width, terms
from kpipe.prune.dependencies.rules import Cut
from kpipe.prune.graph.model_graph import Graph
from kpipe.prune.graph.tracing import read
from kpipe.prune.surgery.rebuilding import rebuild

__all__ = ["Plan", "copied", "count_kept_params", "plan", "plan_units", "remove_filters"]

Channels = Sequence[int] | np.ndarray


@dataclass(frozen=True)
class Plan:
    """What is kept, and what it costs.

    Args:
        kept: name of a layer or raw operation -> sorted output channels that stay, (kept,) int64,
            for every operation whose output loses channels. Channels of a flattened output are
            its positions.
        protected: name -> why its filters must stay.
        macs_before: multiply-accumulates of the model as it is; None where the image size is open.
        macs_after: the same with the channels removed.
        params_before: parameters of the model as it is, trainable or not.
        params_after: the same with the channels removed.
    """

    kept: dict[str, np.ndarray]
    protected: dict[str, str]
    macs_before: int | None
    macs_after: int | None
    params_before: int
    params_after: int


def plan(
    model: keras.Model, remove: Mapping[str, Channels], *, ignored_layers: Iterable[str] = ()
) -> Plan:
    """Closes a request over everything that must go with it.

    Args:
        model: a built Functional or Sequential model; nested models are opened.
        remove: name of a layer or raw operation -> output channels to remove.
        ignored_layers: layers whose output channels must stay.

    Raises:
        PruneError: unknown layers or channels, protected channels, or layers that would be left
            without a channel; all of them are named.
    """
    dependencies = build_dependencies(read(model), ignored_layers)
    return plan_units(dependencies, _requested(dependencies, remove))


def plan_units(dependencies: DependencyGraph, removed: np.ndarray) -> Plan:
    """The plan of removing the units marked in `removed`, (units of the coupling,) bool."""
    graph = dependencies.graph
    kept = _kept(dependencies, removed)
    empty = [repr(name) for name, channels in kept.items() if not len(channels)]
    if empty:
        raise PruneError(
            f"nothing would be left of {', '.join(empty)}",
            expected="at least one channel kept in every layer",
            fix="leave a channel of each, and of the layers that are joined with them",
        )
    fixed = all(None not in shape[1:] for shape in graph.shapes)
    costs = terms(graph) if fixed else []
    width = kept_width(dependencies, removed)
    return Plan(
        kept,
        dependencies.protected,
        sum(term.macs(graph.channels) for term in costs) if fixed else None,
        sum(term.macs(width) for term in costs) if fixed else None,
        _params(graph, {}),
        _params(graph, kept),
    )


def _requested(dependencies: DependencyGraph, remove: Mapping[str, Channels]) -> np.ndarray:
    known = {operation.name: operation for operation in dependencies.graph.operations}
    if not isinstance(remove, Mapping):
        raise PruneError(
            "a request names layers, and the channels of each",
            expected='a dictionary such as {"conv_1": [0, 3]}',
            received=repr(remove)[:200],
        )
    removed = np.zeros(len(dependencies.frozen), bool)
    faults: list[str] = []
    for name, channels in remove.items():
        if name not in known:
            faults.append(f"there is no layer {name!r} ({nearest(name, known)})")
            continue
        units = dependencies.output_units(known[name])
        try:
            asked = np.asarray(channels)
        except ValueError:  # lists of several lengths
            asked = np.asarray(None)
        if asked.size and (asked.ndim != 1 or asked.dtype.kind not in "iu"):
            faults.append(f"the channels of {name!r} are not a list of integers")
            continue
        asked = asked.astype(np.int64)
        outside = asked[(asked < 0) | (asked >= len(units))]
        if len(outside):
            faults.append(f"{name!r} has {len(units)} channels, not {outside.tolist()}")
            continue
        stuck = asked[dependencies.frozen[units[asked]]]
        if len(stuck):
            reason = dependencies.protected.get(
                name, "they are joined with channels that must stay"
            )
            faults.append(f"channels {stuck.tolist()} of {name!r} are protected: {reason}")
            continue
        removed[units[asked]] = True
    if faults:
        raise PruneError(
            "channels cannot be removed: " + "; ".join(faults),
            expected="{name of a layer: [output channel, ...]} of filters that can be removed",
            fix="kpipe.prune.rank(model) names the layers and their channels",
        )
    return removed


def _positions(
    graph: Graph, kept: Mapping[str, np.ndarray]
) -> tuple[dict[int, np.ndarray], dict[str, Cut]]:
    """Tensor number -> channels kept, and operation name -> what changes in it."""
    stays: dict[int, np.ndarray] = {}
    for operation in graph.operations:
        for call in operation.calls:
            for tensor in call.outputs:
                everything = np.arange(graph.channels(tensor))
                stays[tensor] = kept.get(operation.name, everything)
    cuts = {}
    for operation in graph.operations:
        call = operation.calls[0]
        reads = [stays[tensor] for tensor in call.inputs]
        touched = [operation.name in kept]
        touched += [len(r) < graph.channels(t) for r, t in zip(reads, call.inputs, strict=True)]
        cuts[operation.name] = (
            cut_of(operation, reads, stays[call.outputs[0]]) if any(touched) else Cut()
        )
    return stays, cuts


def _params(graph: Graph, kept: Mapping[str, np.ndarray]) -> int:
    total = 0
    _, cuts = _positions(graph, kept)
    for operation in graph.operations:
        for name, shape in operation.weights.items():
            sizes = list(shape)
            for axis, positions in cuts[operation.name].weights.get(name, {}).items():
                sizes[axis] = len(positions)
            total += math.prod(sizes)
    return total


def count_kept_params(dependencies: DependencyGraph, removed: np.ndarray) -> int:
    """Parameters that are left without the units marked in `removed` (units,)."""
    return _params(dependencies.graph, _kept(dependencies, removed))


def _kept(dependencies: DependencyGraph, removed: np.ndarray) -> dict[str, np.ndarray]:
    """Name of each operation that loses channels -> those that stay."""
    kept = {}
    for operation in dependencies.graph.operations:
        stays = ~removed[dependencies.output_units(operation)]
        if not stays.all():
            kept[operation.name] = np.flatnonzero(stays)
    return kept


def remove_filters(model: keras.Model, plan: Plan) -> keras.Model:
    """A new model without the filters that the plan removes.

    The new model is an ordinary flat Functional model: layers keep their names, weights, dtype
    policies and trainable flags, and nested models are opened. It shares nothing with the old one,
    which still predicts. It is not compiled: an optimizer's state belongs to the old weights.

    Args:
        model: the model that the plan was made for.
        plan: what to keep; a plan that removes nothing gives a copy.

    Raises:
        PruneError: the plan is of another model, or a layer cannot be built again.
    """
    if not isinstance(plan, Plan):
        raise PruneError(
            "filters are removed by a plan",
            expected="what kpipe.prune.plan(model, {layer: channels}) gives",
            received=repr(plan)[:200],
        )
    graph = read(model)
    _check_fits(graph, plan)
    _, cuts = _positions(graph, plan.kept)
    return rebuild(graph, model.name, cuts, {})


def copied(model: keras.Model) -> keras.Model:
    """A copy of a model: flat, not compiled, with nothing removed."""
    return remove_filters(model, plan(model, {}))


def _check_fits(graph: Graph, plan: Plan) -> None:
    widths = {op.name: graph.channels(op.calls[0].outputs[0]) for op in graph.operations}
    wrong = [
        repr(name)
        for name, kept in plan.kept.items()
        if name not in widths or not len(kept) or kept[-1] >= widths[name]
    ]
    if wrong or _params(graph, {}) != plan.params_before:
        raise PruneError(
            "the plan was made for another model",
            expected=f"a model of {plan.params_before:,} parameters with the layers of the plan",
            received=f"a model of {_params(graph, {}):,} parameters"
            + (f"; not as planned: {', '.join(wrong)}" if wrong else ""),
            fix="call kpipe.prune.plan on the model that is to be cut",
        )
