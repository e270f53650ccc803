"""Choose removals for a latency target by the loss they add for each millisecond they save.

    proposal  a group of filters narrowed to its next width, or a residual block removed
    trial     one proposal alone, without retraining: the loss it adds, the milliseconds it saves
    order     trials by loss per millisecond; a block after the proposals in its branch, if at all
    removed   the shortest prefix of the order that is measured to meet the target; if none does,
              the better half of the order, and the rest is tried again

Widths are  round_to * 2^n,  because kernels compute channels in powers of two and other widths save
nothing. NetAdapt also narrows layers one by one and measures on the device (Yang et al. 2018, arXiv
1804.03230). What is best by loss per cost is best for the cost that it reaches: Everett 1963,
Operations Research 11(3), theorem 1.
"""

from __future__ import annotations

import bisect
import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kpipe.errors import PruneError
from kpipe.prune.dependencies.dependency_graph import DependencyGraph, build_dependencies
from kpipe.prune.evaluation import Loss
from kpipe.prune.images import calibration_batches
from kpipe.prune.loop.limits import Limits
from kpipe.prune.loop.selection import Selection
from kpipe.prune.loop.targets import Latency
from kpipe.prune.ranking.ranking import Ranking
from kpipe.prune.surgery.batch_norm_statistics import ReferenceStatistics
from kpipe.prune.surgery.block_removal import without_blocks
from kpipe.prune.surgery.planning import apply_plan, plan_units, units_of
from kpipe.prune.surgery.weight_refitting import refit

__all__ = ["LatencySearch", "TrialConfig"]

_MAX_RESTORED = 3  # proposals that may be restored after the target is met, a measurement each
_IMAGES = 64  # on which statistics are shifted in a trial


@dataclass(frozen=True)
class TrialConfig:
    """How a trial is measured.

    Args:
        latency: (uncompiled model) -> milliseconds.
        loss: (uncompiled model) -> a loss on validation data.
        calibration: images on which a model is shifted and refitted; None leaves it as it is.
        progress: called as `progress(done, total)` after each trial, or None.
    """

    latency: Latency
    loss: Loss
    calibration: Iterable[Any] | None
    progress: Callable[[int, int], None] | None


@dataclass(frozen=True)
class _Proposal:
    """A removal that may be made.

    Args:
        name: of a group of filters or a residual block.
        kept: filters left in the group; 0 for a block.
    """

    name: str
    kept: int


@dataclass(frozen=True)
class _Trial:
    """The milliseconds that a proposal saves and the loss that it adds."""

    saved: float
    added: float
    proposal: _Proposal

    @property
    def order(self) -> tuple[float, float]:
        """Loss for each millisecond; if equal, the larger saving comes first."""
        return self.added / self.saved, -self.saved


class LatencySearch:
    """A search for the removals that bring one model to a latency.

    Args:
        dependencies: of the model, which is not changed.
        rankings: group name -> scores; groups that are missing stay whole.
        selection: how filters are chosen.
        limits: what must stay.
        trials: how a trial is measured.
    """

    def __init__(
        self,
        dependencies: DependencyGraph,
        rankings: Mapping[str, Ranking],
        selection: Selection,
        limits: Limits,
        trials: TrialConfig,
    ) -> None:
        graph = dependencies.graph
        self._dependencies, self._rankings, self._selection = dependencies, rankings, selection
        self._min_units, self._blocks = limits.min_units(graph), limits.blocks(graph)
        self._config = trials
        self._reference = None
        if trials.calibration is not None:
            few = calibration_batches(dependencies.model, trials.calibration, _IMAGES)
            self._reference = ReferenceStatistics(dependencies.model, graph, few)

    def reduce(self, limit: float, time: float) -> tuple[keras.Model, bool]:
        """Return a smaller model and whether it meets the limit.

        The model lacks the shortest prefix of the order that meets the limit, or the first half of
        the order if no prefix does.

        Args:
            limit: milliseconds.
            time: latency of the model before the search, in milliseconds.

        Raises:
            PruneError: no proposal saves time.
        """
        trials = self._trials(time)
        order = self._order(trials)
        if not order:
            raise PruneError(
                f"the model cannot be pruned to {limit:.4g} ms",
                expected="a removal that saves time",
                received=f"latency measures no saving for any of the {len(trials)} that are left"
                if trials
                else "nothing is left that may be removed",
            )

        def meets(count: int) -> bool:
            return self._config.latency(self._without(order[:count], 0)) <= limit

        shortest = bisect.bisect_left(range(len(order) + 1), True, key=meets)
        if shortest > len(order):
            return self._without(order[: (len(order) + 1) // 2]), False
        taken = order[:shortest]
        for proposal in taken[-2 : -2 - _MAX_RESTORED : -1]:
            fewer = [other for other in taken if other is not proposal]
            if self._config.latency(self._without(fewer, 0)) <= limit:
                taken = fewer
        return self._without(taken), True

    def _trials(self, time: float) -> dict[str, _Trial]:
        """Name of a group or block -> its trial, including those that save no time."""
        proposals = [_Proposal(name, width) for name, width in self._widths().items()]
        proposals += [_Proposal(name, 0) for name in self._blocks]
        config, trials = self._config, {}
        loss = config.loss(self._dependencies.model)
        for done, proposal in enumerate(proposals, 1):
            small = self._without([proposal], _IMAGES)
            saved, added = time - config.latency(small), config.loss(small) - loss
            # A loss that falls counts as 0; otherwise the smallest saving would come first.
            trials[proposal.name] = _Trial(saved, max(added, 0.0), proposal)
            if config.progress is not None:
                config.progress(done, len(proposals))
        return trials

    def _widths(self) -> dict[str, int]:
        """Name of each group that can be narrower -> its next width."""
        found = {}
        for name, ranking in self._rankings.items():
            size, minimum = len(ranking.scores), self._min_units[name]
            powers = (self._selection.round_to * 2**n for n in range(size.bit_length()))
            narrower = [width for width in (minimum, *powers) if minimum <= width < size]
            if narrower:
                found[name] = max(narrower)
        return found

    def _order(self, trials: Mapping[str, _Trial]) -> list[_Proposal]:
        """All proposals that save time, in the order of removal."""
        useful = {name: trial for name, trial in trials.items() if trial.saved > 0}
        chains: dict[str, list[_Trial]] = defaultdict(list)
        for name, ranking in self._rankings.items():
            if name in useful:
                chains[self._block_around(set(ranking.group.members))].append(useful[name])
        for name, gone in sorted(self._blocks.items(), key=lambda block: len(block[1])):
            chain = chains.pop(name, [])
            if name in useful:
                chain = _chain(chain, useful[name])
            chains[self._block_around(gone)] += chain
        (ordered,) = chains.values() or [[]]
        return [trial.proposal for trial in sorted(ordered, key=_by_order)]

    def _block_around(self, names: set[str]) -> str:
        """The smallest block that holds more than these operations; "" for none."""
        around = {name: len(gone) for name, gone in self._blocks.items() if names < gone}
        return min(around, key=around.__getitem__) if around else ""

    def _without(self, proposals: Sequence[_Proposal], images: int | None = None) -> keras.Model:
        """The model after some proposals.

        Args:
            proposals: what to remove.
            images: statistics are shifted on the first batches with this many images; 0 leaves
                them. None shifts them on all images and refits the weights that are left.
        """
        dependencies = self._dependencies
        gone = [proposal.name for proposal in proposals if not proposal.kept]
        if gone:
            model = without_blocks(dependencies.model, dependencies.graph, gone)
            dependencies = build_dependencies(model, self._selection.ignored_layers)
        left = {operation.name for operation in dependencies.graph.operations}
        request: dict[str, list[int]] = defaultdict(list)
        for proposal in proposals:
            if not proposal.kept:
                continue
            ranking = self._rankings[proposal.name]
            order = np.argsort(ranking.scores, kind="stable")
            lowest = order[: len(order) - proposal.kept]
            for layer in left & set(ranking.group.members):
                request[layer] += ranking.group.members[layer][lowest].ravel().tolist()
        plan = plan_units(dependencies, units_of(dependencies, request))
        smaller = apply_plan(dependencies, plan)
        if images and self._reference is not None:
            self._reference.shift(smaller, plan, images)
        elif images is None and self._config.calibration is not None:
            refit(
                self._dependencies.model,
                self._dependencies.graph,
                smaller,
                plan,
                self._config.calibration,
            )
        return smaller


_by_order = operator.attrgetter("order")


def _chain(inside: Iterable[_Trial], block: _Trial) -> list[_Trial]:
    """The trials inside a block that come before the block as a whole, then the block.

    They follow the lower convex hull of (saved, added): as long as the next trial adds less loss
    per millisecond than everything that the block removes.
    """
    chain, rest = [], block
    for trial in sorted(inside, key=_by_order):
        if rest.saved > 0 and rest.order[0] < trial.order[0]:
            break
        chain.append(trial)
        rest = _Trial(rest.saved - trial.saved, rest.added - trial.added, block.proposal)
    if rest.saved > 0:
        chain.append(_Trial(rest.saved, max(rest.added, 0.0), block.proposal))
    return chain
