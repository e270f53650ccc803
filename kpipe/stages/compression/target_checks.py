"""Check the target of FilterPrune before any stage runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from kpipe.core.stage import Stage
from kpipe.stages.data import Data
from kpipe.stages.shared.declared import newest, refusals
from kpipe.stages.training.network_training import build_network
from kpipe.stages.training.recipe import Recipe

__all__ = ["refuse_unreachable_target", "target_conflicts"]

_MANY_CLASSES = 10_000
_COSTS = {"macs": "MACs", "params": "parameters"}


def target_conflicts(target: Mapping[str, float], min_filters_fraction: float) -> list[str]:
    """Return one sentence for each error in the target.

    Args:
        target: "macs" or "params" -> fraction to keep; or "latency_ms" -> milliseconds, which
            are not checked, because that needs a measurement.
        min_filters_fraction: minimum fraction of filters to keep in each group.
    """
    if len(target) > 1:
        targets = ", ".join(f"{name}={value}" for name, value in target.items())
        return [f"{targets}: only one target is allowed"]
    # MACs and parameters are proportional to the filters that a layer reads and to those that it
    # makes. At least this fraction of each is kept.
    lowest = min_filters_fraction**2
    return [
        f"{name}={value} cannot be reached: min_filters_fraction={min_filters_fraction} keeps at "
        f"least {lowest:.4g} of the {_COSTS[name]}"
        for name, value in target.items()
        if name != "latency_ms" and value < lowest * (1 - 1e-6)
    ]


def refuse_unreachable_target(
    earlier: Sequence[Stage],
    target: Mapping[str, float],
    round_to: int,
    min_filters_fraction: float,
) -> None:
    """Refuse a target that no removal of filters from the declared network reaches.

    Args:
        earlier: the stages before FilterPrune, which declare the network.
        target: as for `target_conflicts`.
        round_to: keep a multiple of this number of filters in each group.
        min_filters_fraction: minimum fraction of filters to keep in each group.

    Raises:
        PruneError: the target cannot be reached.
    """
    # The newest recipe: that of a student, if one was distilled.
    recipe = next((one for one in reversed(earlier) if isinstance(one, Recipe)), None)
    data = newest(earlier, Data)
    if recipe is None or data is None or "latency_ms" in target:
        return
    from kpipe.prune import Selection
    from kpipe.prune.loop.reachability import refuse_unreachable

    untrained = dataclasses.replace(recipe, weights=None)
    selection = Selection(round_to=round_to, min_filters_fraction=min_filters_fraction)

    def check(classes: int) -> None:
        model = build_network(untrained, data.image_size, classes, seed=0)
        refuse_unreachable(model, selection, **target)

    # The number of classes is not known yet. Pruning leaves (a + b * classes) / (c + d * classes)
    # of the cost. For any number, that lies between its values for the fewest and the most classes.
    if refusals(check, 2):
        check(max(2, data.most_classes() or _MANY_CLASSES))
