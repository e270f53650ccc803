"""Refuse a target that no allowed removal reaches."""

from __future__ import annotations

from collections.abc import Callable

import keras

from kpipe.errors import PruneError
from kpipe.prune.dependencies.dependency_graph import build_dependencies
from kpipe.prune.loop.selection import Selection, largest_removal, min_units
from kpipe.prune.loop.targets import Target, find_target

__all__ = ["check_reachable", "refuse_unreachable"]


def refuse_unreachable(
    model: keras.Model,
    selection: Selection,
    *,
    macs: float | None = None,
    params: float | None = None,
) -> None:
    """Refuse a target that `kpipe.prune.prune_filters` would refuse for any weights of the model.

    Args:
        model: a built Functional or Sequential model of fixed image size.
        selection: its `min_filters_fraction`, `round_to`, `max_pruning_ratio` and
            `ignored_layers` apply.
        macs: fraction of its multiply-accumulates to reach, in (0, 1).
        params: fraction of its parameters to reach, in (0, 1), as the target instead.

    Raises:
        PruneError: no removal reaches it; the error names the nearest that can be reached.

    Example:
        >>> import keras
        >>> from kpipe.prune import Selection
        >>> from kpipe.prune.loop.reachability import refuse_unreachable
        >>> layers = [keras.layers.Dense(16), keras.layers.Dense(2)]
        >>> model = keras.Sequential([keras.Input((3,)), *layers])
        >>> refuse_unreachable(model, Selection(round_to=4), params=0.1)
        Traceback (most recent call last):
        kpipe.errors.PruneError: the model cannot be pruned to params=0.1
        ...
    """
    target = find_target(macs, params, None, None)
    dependencies = build_dependencies(model, selection.ignored_layers)

    def lowest_cost() -> float:
        removed = largest_removal(dependencies, min_units(dependencies.groups, selection))
        return target.removal_cost(dependencies)(removed)

    cost = target.cost(dependencies)
    check_reachable(target, selection, cost, lowest_cost, len(dependencies.protected))


def check_reachable(
    target: Target,
    selection: Selection,
    cost: float,
    lowest_cost: Callable[[], float],
    protected: int,
) -> None:
    """Refuse a target that the original model meets, or that no removal reaches.

    Args:
        target: the target.
        selection: named in the error.
        cost: of the original model.
        lowest_cost: returns what it costs after the largest removal that is allowed.
        protected: number of protected layers.

    Raises:
        PruneError: there is nothing to remove, or too little.
    """
    if target.limit(cost) >= cost:
        raise PruneError(
            "the original model already meets the target",
            expected=f"{target.argument} below {cost:.4g}",
            received=f"{target.argument}={target.value}",
        )
    lowest = lowest_cost()
    if lowest > target.most(target.limit(cost)):
        raise PruneError(
            f"the model cannot be pruned to {target.argument}={target.value:.4g}",
            expected=f"{target.format_cost(lowest, cost)}, the nearest that can be reached with "
            f"round_to={selection.round_to} and "
            f"min_filters_fraction={selection.min_filters_fraction}",
            received=f"{target.argument}={target.value}",
            fix="choose a higher target, or lower min_filters_fraction or round_to"
            + (f"; {protected} layers are protected" if protected else ""),
        )
