"""How a model is reduced to a cost: by rank, or by trials.

by rank     a fraction of multiply-accumulates or parameters: remove the lowest scores of all groups
by trials   milliseconds: remove what is measured to add the least loss for each one saved

The original model, before the first round, determines what must stay.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import keras
import numpy as np

from kpipe.prune.dependencies.dependency_graph import DependencyGraph, build_dependencies
from kpipe.prune.evaluation import Loss
from kpipe.prune.loop.config import LoopConfig
from kpipe.prune.loop.latency_search import LatencySearch, TrialConfig
from kpipe.prune.loop.limits import Limits
from kpipe.prune.loop.selection import largest_removal, min_units, select
from kpipe.prune.ranking.ranking import Ranking, rank_groups
from kpipe.prune.surgery.planning import apply_plan, plan_units
from kpipe.prune.surgery.weight_refitting import refit

__all__ = ["LatencyStrategy", "RankingStrategy", "Strategy"]

_MEASUREMENTS = 3  # of the latency of a model before a search, of which the median counts


class Strategy(ABC):
    """A way to reduce models to a cost.

    Args:
        original: the dependency graph of the model before the first round.
        config: of the loop.
    """

    def __init__(self, original: DependencyGraph, config: LoopConfig) -> None:
        self._original, self._config = original, config

    @abstractmethod
    def lowest_cost(self) -> float:
        """Return what the original model costs after the largest removal that is allowed."""

    @abstractmethod
    def reduce(self, dependencies: DependencyGraph, limit: float, seed: int) -> keras.Model:
        """Return a model that costs no more than the limit; counted costs, to four digits.

        Args:
            dependencies: of the model that the last round left; not changed, and returned if it
                costs no more.
            limit: in the unit of the target.
            seed: of the criterion.

        Raises:
            PruneError: no removal meets the limit.
        """

    def _rank(self, dependencies: DependencyGraph, seed: int) -> dict[str, Ranking]:
        config, selection = self._config, self._config.selection
        data = config.calibration if selection.data is None else selection.data
        return rank_groups(
            dependencies, config.criterion, data, normalize=selection.normalize, seed=seed
        )


class RankingStrategy(Strategy):
    """Remove the lowest scores, see `select`: arithmetic on the graph, nothing is measured."""

    def __init__(self, original: DependencyGraph, config: LoopConfig) -> None:
        super().__init__(original, config)
        self._min_units = min_units(original.groups, config.selection)

    def lowest_cost(self) -> float:
        removed = largest_removal(self._original, self._min_units)
        return self._config.target.removal_cost(self._original)(removed)

    def reduce(self, dependencies: DependencyGraph, limit: float, seed: int) -> keras.Model:
        target = self._config.target
        most = target.most(limit)
        if target.cost(dependencies) <= most:  # the last round saved more than needed
            return dependencies.model
        rankings, cost = self._rank(dependencies, seed), target.removal_cost(dependencies)
        round_to = self._config.selection.round_to
        lowest = cost(largest_removal(dependencies, self._min_units))  # above the limit, perhaps
        below, near = (
            select(dependencies, rankings, cost, allowed, self._min_units, round_to)
            for allowed in (max(limit, lowest), most)
        )
        nearest = near if abs(cost(near) - limit) < limit - cost(below) else below
        plan = plan_units(dependencies, nearest)
        smaller = apply_plan(dependencies, plan)
        if self._config.calibration is not None:
            refit(dependencies.model, dependencies.graph, smaller, plan, self._config.calibration)
        return smaller


class LatencyStrategy(Strategy):
    """Search by trials, see `LatencySearch`, until the limit is met.

    Args:
        loss: (uncompiled model) -> a loss on validation data.
        progress: called as `progress(done, total)` after each trial of a search, or None.
    """

    def __init__(
        self,
        original: DependencyGraph,
        config: LoopConfig,
        *,
        loss: Loss,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        super().__init__(original, config)
        self._limits = Limits(original, config.selection)
        self._loss, self._progress = loss, progress

    def lowest_cost(self) -> float:
        return self._config.target.milliseconds(self._limits.smallest())

    def reduce(self, dependencies: DependencyGraph, limit: float, seed: int) -> keras.Model:
        selection, latency = self._config.selection, self._config.target.milliseconds
        while True:
            model = dependencies.model
            time = float(np.median([latency(model) for _ in range(_MEASUREMENTS)]))
            if time <= limit:
                return model
            rankings = self._rank(dependencies, seed)
            trials = TrialConfig(latency, self._loss, self._config.calibration, self._progress)
            search = LatencySearch(dependencies, rankings, selection, self._limits, trials)
            model, met = search.reduce(limit, time)
            if met:
                return model
            dependencies = build_dependencies(model, selection.ignored_layers)
