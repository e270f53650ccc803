"""How models are brought down to a cost: by rank, or by removals that are tried.

ranked   a share of multiply-accumulates or parameters: the lowest scores of all groups go
tried    milliseconds: what is measured to add the least loss for each of them goes

Both begin with the model as it was before the first round, which sets what must stay.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np

from kpipe.prune.dependencies.dependency_graph import DependencyGraph, build_dependencies
from kpipe.prune.graph.tracing import read
from kpipe.prune.loop.latency_search import LatencySearch
from kpipe.prune.loop.limits import Limits
from kpipe.prune.loop.selection import Selection, at_floors, floors, select
from kpipe.prune.loop.targets import Target
from kpipe.prune.ranking.ranking import Criterion, Ranking, score
from kpipe.prune.surgery.batch_norm_statistics import Reference, shift_statistics
from kpipe.prune.surgery.block_removal import Loss
from kpipe.prune.surgery.planning import plan_units, remove_filters

__all__ = ["RankedRemoval", "Removal", "TriedRemoval"]

_MEASUREMENTS = 3  # of the time of a model as it is, of which the median counts


class Removal(ABC):
    """What goes, and what must stay.

    Args:
        model: as it was before the first round.
        target: of the loop.
        selection: how filters are chosen.
        criterion: see `rank`.
        images: batches on which statistics of normalizations are shifted; None leaves them.
    """

    def __init__(
        self,
        model: keras.Model,
        target: Target,
        selection: Selection,
        criterion: str | Criterion,
        images: Iterable[Any] | None,
    ) -> None:
        self._whole = build_dependencies(read(model), selection.ignored_layers)
        self._target, self._selection = target, selection
        self._criterion, self._images = criterion, images

    @property
    def protected(self) -> Mapping[str, str]:
        """Name of a layer that is not cut -> why."""
        return self._whole.protected

    @abstractmethod
    def lowest(self) -> float:
        """What the model as it was costs without all that may go."""

    @abstractmethod
    def down(self, model: keras.Model, limit: float, seed: int) -> keras.Model:
        """A model that costs no more than the limit, of one that earlier rounds left.

        Args:
            model: left as it is; the answer where it costs no more.
            limit: in the unit of the target.
            seed: of the criterion.

        Raises:
            PruneError: no removal that is left meets the limit.
        """

    def _scores(
        self, model: keras.Model, dependencies: DependencyGraph, seed: int
    ) -> dict[str, Ranking]:
        chosen = self._selection
        data = self._images if chosen.data is None else chosen.data
        return score(
            dependencies, model, self._criterion, data, normalize=chosen.normalize, seed=seed
        )


class RankedRemoval(Removal):
    """By `select`: arithmetic on the graph, nothing measured."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        chosen = self._selection
        self._least = floors(
            self._whole.groups,
            chosen.min_filters_fraction,
            chosen.round_to,
            chosen.max_pruning_ratio,
        )

    def lowest(self) -> float:
        return self._target.price(self._whole)(at_floors(self._whole, self._least))

    def down(self, model: keras.Model, limit: float, seed: int) -> keras.Model:
        if self._target.cost(model) <= limit:  # the round before saved more than it had to
            return model
        dependencies = build_dependencies(read(model), self._selection.ignored_layers)
        plan = plan_units(
            dependencies,
            select(
                dependencies,
                self._scores(model, dependencies, seed),
                self._target.price(dependencies),
                limit,
                self._least,
                self._selection.round_to,
            ),
        )
        smaller = remove_filters(model, plan)
        if self._images is not None:
            shift_statistics(model, smaller, plan, self._images)
        return smaller


class TriedRemoval(Removal):
    """By a `LatencySearch`, pass by pass: what is left is tried anew until the limit is met.

    Args:
        loss: (uncompiled model) -> a loss on validation data.
        progress: called as `progress(done, total)` after each trial of a pass; None for nobody.
    """

    def __init__(
        self,
        model: keras.Model,
        *given: Any,
        loss: Loss,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        super().__init__(model, *given)
        self._limits = Limits(model, self._selection)
        self._loss, self._progress = loss, progress

    def lowest(self) -> float:
        return self._target.cost(self._limits.smallest())

    def down(self, model: keras.Model, limit: float, seed: int) -> keras.Model:
        met = False
        while not met:
            time = float(np.median([self._target.cost(model) for _ in range(_MEASUREMENTS)]))
            if time <= limit:
                return model
            trade = LatencySearch(
                model,
                self._scores(
                    model, build_dependencies(read(model), self._selection.ignored_layers), seed
                ),
                self._selection,
                self._limits,
                latency=self._target.cost,
                loss=self._loss,
                reference=None if self._images is None else Reference(model, self._images),
                progress=self._progress,
            )
            model, met = trade.down(limit, time)
        return model
