"""What goes for a target in milliseconds: what adds the least loss for each millisecond saved.

    step     a group of filters narrowed to its next width, or a residual block removed
    trial    a step alone, nothing retrained: the loss that it adds, the milliseconds that it saves
    order    steps by loss per millisecond; a block after those in its branch, if at all
    answer   the shortest beginning of the order that is measured to meet the target; where none
             does, the better half of it goes, and what is left is tried again

Widths are  round_to * 2^n:  kernels compute channels in powers of two, and between these nothing is
saved. Narrower layers proposed one by one, measured on the device: NetAdapt (Yang et al. 2018,
arXiv 1804.03230). What is best by loss per cost is best for the cost that it reaches: Everett 1963,
Operations Research 11(3), theorem 1.
"""

from __future__ import annotations

import bisect
import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from kpipe.errors import PruneError
from kpipe.prune.graph.tracing import read
from kpipe.prune.loop.limits import Limits
from kpipe.prune.loop.selection import Selection
from kpipe.prune.loop.targets import Latency
from kpipe.prune.ranking.ranking import Ranking
from kpipe.prune.surgery.batch_norm_statistics import Reference
from kpipe.prune.surgery.block_removal import Loss, remove_blocks
from kpipe.prune.surgery.planning import plan, remove_filters

__all__ = ["LatencySearch"]

_RETURNS = 3  # steps that are tried for whether they can stay after all, each a measurement
_IMAGES = 64  # on which statistics are shifted in a trial


@dataclass(frozen=True)
class _Step:
    """A removal.

    Args:
        name: of a group of filters or a residual block.
        kept: filters that are left of the group; 0 where a block goes.
    """

    name: str
    kept: int


@dataclass(frozen=True)
class _Edge:
    """What a step saves, in milliseconds, and adds to the loss, after those before it."""

    saved: float
    added: float
    step: _Step

    @property
    def order(self) -> tuple[float, float]:
        """Loss for each millisecond; where that is the same, what saves most comes first."""
        return self.added / self.saved, -self.saved


class LatencySearch:
    """A model, and what can be removed from it.

    Args:
        model: left as it is.
        rankings: name of a group -> its scores, for this model; other groups stay whole.
        selection: how filters are chosen.
        limits: what must stay.
        latency: (uncompiled model) -> milliseconds.
        loss: (uncompiled model) -> a loss on validation data.
        reference: by which the statistics of normalizations are shifted; None leaves them.
        progress: called as `progress(done, total)` after each trial.
    """

    def __init__(
        self,
        model: keras.Model,
        rankings: Mapping[str, Ranking],
        selection: Selection,
        limits: Limits,
        *,
        latency: Latency,
        loss: Loss,
        reference: Reference | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        graph = read(model)
        self._model, self._rankings, self._selection = model, rankings, selection
        self._least, self._blocks = limits.least(graph), limits.blocks(graph)
        self._latency, self._loss = latency, loss
        self._reference, self._progress = reference, progress

    def down(self, limit: float, time: float) -> tuple[keras.Model, bool]:
        """The model without the shortest beginning of the order that meets the limit.

        Without the first half of it, and False, where no beginning does.

        Args:
            limit: milliseconds.
            time: milliseconds that the model takes as it is.

        Raises:
            PruneError: no step saves time.
        """
        trials = self._trials(time)
        order = self._order(trials)
        if not order:
            raise PruneError(
                f"the model cannot be cut to {limit:.4g} ms",
                expected="a removal that saves time",
                received=f"none of the {len(trials)} that are left does, as latency measures them"
                if trials
                else "nothing is left that may go",
            )

        def meets(count: int) -> bool:
            return self._latency(self._without(order[:count], 0)) <= limit

        shortest = bisect.bisect_left(range(len(order) + 1), True, key=meets)
        if shortest > len(order):
            return self._without(order[: (len(order) + 1) // 2]), False
        taken = order[:shortest]
        for step in taken[-2 : -2 - _RETURNS : -1]:
            fewer = [other for other in taken if other is not step]
            if self._latency(self._without(fewer, 0)) <= limit:
                taken = fewer
        return self._without(taken), True

    def _trials(self, time: float) -> dict[str, _Edge]:
        """Name of a group or block -> its step alone, those that save no time too."""
        steps = [_Step(name, width) for name, width in self._widths().items()]
        steps += [_Step(name, 0) for name in self._blocks]
        loss, trials = self._loss(self._model), {}
        for done, step in enumerate(steps, 1):
            small = self._without([step], _IMAGES)
            saved, added = time - self._latency(small), self._loss(small) - loss
            # A loss that falls counts as none: else what saves least would come first.
            trials[step.name] = _Edge(saved, max(added, 0.0), step)
            if self._progress is not None:
                self._progress(done, len(steps))
        return trials

    def _widths(self) -> dict[str, int]:
        """Name of each group that can be narrower -> the next width."""
        found = {}
        for name, ranking in self._rankings.items():
            size, least = len(ranking.scores), self._least[name]
            powers = (self._selection.round_to * 2**n for n in range(size.bit_length()))
            narrower = [width for width in (least, *powers) if least <= width < size]
            if narrower:
                found[name] = max(narrower)
        return found

    def _order(self, trials: Mapping[str, _Edge]) -> list[_Step]:
        """All steps that save time."""
        useful = {name: edge for name, edge in trials.items() if edge.saved > 0}
        chains: dict[str, list[_Edge]] = defaultdict(list)
        for name, ranking in self._rankings.items():
            if name in useful:
                chains[self._holder(set(ranking.group.members))].append(useful[name])
        for name, gone in sorted(self._blocks.items(), key=lambda block: len(block[1])):
            chain = chains.pop(name, [])
            if name in useful:
                chain = _before(chain, useful[name])
            chains[self._holder(gone)] += chain
        (edges,) = chains.values() or [[]]
        return [edge.step for edge in sorted(edges, key=_by_order)]

    def _holder(self, names: set[str]) -> str:
        """The smallest block that these operations go with, but are not all of; "" for none."""
        holding = {name: len(gone) for name, gone in self._blocks.items() if names < gone}
        return min(holding, key=holding.__getitem__) if holding else ""

    def _without(self, steps: Sequence[_Step], images: int | None = None) -> keras.Model:
        """The statistics shifted on all images, or the first batches of so many, or not at 0."""
        gone = [step.name for step in steps if not step.kept]
        smaller = remove_blocks(self._model, gone) if gone else self._model
        left = {operation.name for operation in read(smaller).operations}
        request: dict[str, list[int]] = defaultdict(list)
        for step in steps:
            if not step.kept:
                continue
            ranking = self._rankings[step.name]
            lowest = np.argsort(ranking.scores, kind="stable")[: len(ranking.scores) - step.kept]
            for layer in left & set(ranking.group.members):
                request[layer] += ranking.group.members[layer][lowest].ravel().tolist()
        made = plan(smaller, request, ignored_layers=self._selection.ignored_layers)
        smaller = remove_filters(smaller, made)
        if self._reference is not None and images != 0:
            self._reference.shift(smaller, made, images)
        return smaller


_by_order = operator.attrgetter("order")


def _before(inside: Iterable[_Edge], block: _Edge) -> list[_Edge]:
    """The steps inside of a block that go before the block as a whole, and then the block.

    Along the lower convex hull of (saved, added): as long as the next step adds less for each
    millisecond than all that the block takes with it.
    """
    chain, rest = [], block
    for edge in sorted(inside, key=_by_order):
        if rest.saved > 0 and rest.order[0] < edge.order[0]:
            break
        chain.append(edge)
        rest = _Edge(rest.saved - edge.saved, rest.added - edge.added, block.step)
    if rest.saved > 0:
        chain.append(_Edge(rest.saved, max(rest.added, 0.0), block.step))
    return chain
