"""What goes for a target in milliseconds: what adds the least loss for each millisecond saved.

    step     a group of filters narrowed to its next width, or a residual block removed
    trial    a step alone, nothing retrained: the loss that it adds, the milliseconds that it saves
    order    steps by loss per millisecond; a block after those in its branch, if at all
    answer   the shortest beginning of the order that is measured to meet the target; where none
             does, the better half of it goes, and what is left is tried again

Widths are  multiple * 2^n:  kernels compute channels in powers of two, and between these nothing is
saved. Narrower layers proposed one by one, measured on the device: NetAdapt (Yang et al. 2018,
arXiv 1804.03230). What is best by loss per cost is best for the cost that it reaches: Everett 1963,
Operations Research 11(3), theorem 1.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from kpipe.errors import PruneError
from kpipe.prune.blocks import Loss, remove_blocks
from kpipe.prune.criteria import Ranking
from kpipe.prune.groups import Group, couple
from kpipe.prune.residuals import ResidualBlock, find_blocks
from kpipe.prune.selection import Selection, at_floors
from kpipe.prune.statistics import Reference
from kpipe.prune.surgery import plan, plan_units, remove_filters
from kpipe.prune.targets import Latency
from kpipe.prune.tracing import read

__all__ = ["Trade", "smallest"]

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


def smallest(model: keras.Model, selection: Selection, least: Mapping[str, int]) -> keras.Model:
    """All blocks gone that may go, and every group at its floor."""
    blocks = _removable(find_blocks(read(model)), selection)
    model = remove_blocks(model, [block.name for block in blocks])
    coupling = couple(read(model), selection.protect)
    return remove_filters(model, plan_units(coupling, at_floors(coupling, least)))


def _removable(blocks: Iterable[ResidualBlock], selection: Selection) -> list[ResidualBlock]:
    """Without those that hold a layer whose filters must stay, all or some."""
    held = {*selection.protect, *(name.split("#")[0] for name in selection.ceilings)}
    return [b for b in blocks if selection.blocks and not held & {b.name, *b.branch}]


class Trade:
    """A model, and what can be removed from it.

    Args:
        model: left as it is.
        rankings: name of a group -> its scores, for this model; other groups stay whole.
        selection: how filters are chosen.
        least: name of a group -> units that it keeps at least, see `floors`.
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
        least: Mapping[str, int],
        *,
        latency: Latency,
        loss: Loss,
        reference: Reference | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._model, self._rankings, self._selection = model, rankings, selection
        self._least, self._latency, self._loss = least, latency, loss
        self._reference, self._progress = reference, progress
        self._blocks = _removable(find_blocks(read(model)), selection)

    def down(self, limit: float) -> tuple[keras.Model, bool]:
        """The model without the shortest beginning of the order that meets the limit.

        Without the first half of it, and False, where no beginning does.

        Raises:
            PruneError: no step saves time.
        """
        order = self._order()
        if not order:
            raise PruneError(
                f"the model cannot be cut to {limit:.4g} ms",
                expected="a removal that saves time",
                received="none of those that are left does, as latency measures them",
            )

        def meets(steps: Sequence[_Step]) -> bool:
            return self._latency(self._without(steps, 0)) <= limit

        shortest = bisect.bisect_left(
            range(len(order) + 1), True, key=lambda count: meets(order[:count])
        )
        if shortest > len(order):
            return self._without(order[: (len(order) + 1) // 2]), False
        taken = order[:shortest]
        for step in taken[-2 : -2 - _RETURNS : -1]:
            fewer = [other for other in taken if other is not step]
            if meets(fewer):
                taken = fewer
        return self._without(taken), True

    def _order(self) -> list[_Step]:
        """Where several add the same for each millisecond, what saves most comes first."""
        trials = self._trials()
        chains: dict[str, list[_Point]] = defaultdict(list)
        for name, ranking in self._rankings.items():
            if name in trials:
                chains[self._owner(ranking.group)] += _hull([trials[name]])
        for block in self._blocks:
            chains[block.name] = _hull([*_summed(chains[block.name]), trials[block.name]])
        edges = [edge for chain in chains.values() for edge in chain]
        return [step for _, _, step in sorted(edges, key=lambda edge: (edge[1], -edge[0]))]

    def _trials(self) -> dict[str, _Point]:
        """Name of a group or block -> what its step saves, and adds to the loss."""
        steps = [
            _Step(name, width)
            for name, ranking in self._rankings.items()
            for width in self._next(ranking.group)
        ]
        steps += [_Step(block.name, 0) for block in self._blocks]
        time, loss = self._latency(self._model), self._loss(self._model)
        trials = {}
        for done, step in enumerate(steps, 1):
            small = self._without([step], _IMAGES)
            trials[step.name] = (time - self._latency(small), self._loss(small) - loss, step)
            if self._progress is not None:
                self._progress(done, len(steps))
        return trials

    def _owner(self, group: Group) -> str:
        """The smallest block that the group goes with; its own name where there is none."""
        holding = [b for b in self._blocks if set(group.members) <= set(b.branch)]
        return min(holding, key=lambda b: len(b.branch)).name if holding else group.name

    def _next(self, group: Group) -> list[int]:
        """The next width, if there is one."""
        size, least = len(group.units), self._least[group.name]
        powers = (self._selection.multiple * 2**n for n in range(size.bit_length()))
        return sorted({w for w in (least, *powers) if least <= w < size})[-1:]

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
        made = plan(smaller, request, protect=self._selection.protect)
        smaller = remove_filters(smaller, made)
        if self._reference is not None and images != 0:
            self._reference.shift(smaller, made, images)
        return smaller


_Point = tuple[float, float, _Step]


def _hull(points: Iterable[_Point]) -> list[_Point]:
    """Steps along the lower convex hull from (0, 0), (saved, loss) -> (saved, slope) of each edge.

    A point that saves no more than one before it is left out.
    """
    found: list[_Point] = []
    at, left = (0.0, 0.0), list(points)
    while left := [point for point in left if point[0] > at[0]]:

        def slope(point: _Point, at: tuple[float, float] = at) -> float:
            return (point[1] - at[1]) / (point[0] - at[0])

        nearest = min(left, key=lambda point: (slope(point), -point[0]))
        found.append((nearest[0] - at[0], slope(nearest), nearest[2]))
        at = nearest[:2]
    return found


def _summed(edges: Iterable[_Point]) -> list[_Point]:
    """Edges of several groups, one after the other by slope -> what they save and add together."""
    points, saved, loss = [], 0.0, 0.0
    for more, slope, step in sorted(edges, key=lambda edge: edge[1]):
        saved, loss = saved + more, loss + more * slope
        points.append((saved, loss, step))
    return points
