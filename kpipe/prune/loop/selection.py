"""Which units go, so that the model costs no more than asked.

    block     units of one group that go at once: the next lowest, down to a multiple of 8
    order     blocks of all groups by mean score
    answer    the shortest beginning of that order that meets the target, without those of its
              blocks that fit into what the last one saved too much

This is integer arithmetic on the graph, for multiply-accumulates and parameters. What goes for a
target in milliseconds is chosen by `kpipe.prune.loop.latency_search`.
"""

from __future__ import annotations

import itertools
import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kpipe.errors import PruneError, nearest
from kpipe.prune.dependencies.dependency_graph import DependencyGraph, Group
from kpipe.prune.loop.targets import Price
from kpipe.prune.ranking.ranking import Ranking

__all__ = ["Selection", "at_floors", "check_ceilings", "floors", "select"]

_RETURNS = 16  # blocks that are tried for whether they can stay after all


@dataclass(frozen=True)
class Selection:
    """How the filters that go are chosen.

    Args:
        round_to: filters left in each group are a multiple of it, because odd counts can run
            slower than the unpruned model; a group of no more filters than that stays whole.
        min_filters_fraction: share of each group's filters that stay in any case, in [0, 1].
        normalize: how scores are compared across layers: "mean", "max", "l2" or "none"; None for
            what suits the criterion, see `rank`.
        max_pruning_ratio: name of a group of filters (see `rank`) -> the largest share of them that
            may go, in [0, 1]; a sensitivity scan gives them.
        ignored_layers: layers whose filters must stay.
        blocks: whether residual blocks may go as a whole for a target in milliseconds. Those that
            hold a layer of `ignored_layers`, or a whole group of `max_pruning_ratio` below 1, stay.
        data: handed to the criterion; None for the images of the calibration.
        seed: of the criterion and of Keras' random state at the start of each round.
    """

    round_to: int = 8
    min_filters_fraction: float = 0.1
    normalize: str | None = None
    max_pruning_ratio: Mapping[str, float] = field(default_factory=dict)
    ignored_layers: tuple[str, ...] = ()
    blocks: bool = True
    data: Any = None
    seed: int = 0

    def __post_init__(self) -> None:
        counted = isinstance(self.round_to, numbers.Integral) and self.round_to >= 1
        shared = (
            isinstance(self.min_filters_fraction, numbers.Real)
            and 0 <= self.min_filters_fraction <= 1
        )
        if not counted or not shared:
            raise PruneError(
                "the selection cannot be made",
                expected="round_to, a whole number of at least 1, "
                "and min_filters_fraction in [0, 1]",
                received=f"round_to={self.round_to!r}, "
                f"min_filters_fraction={self.min_filters_fraction!r}",
            )
        wrong = {
            name: share for name, share in self.max_pruning_ratio.items() if not 0 <= share <= 1
        }
        if wrong:
            raise PruneError(
                "max_pruning_ratio holds shares of the filters of a group",
                expected="in [0, 1]",
                received=str(wrong),
            )


@dataclass(frozen=True)
class _Block:
    group: str
    score: float
    units: np.ndarray


def check_ceilings(groups: Iterable[Group], max_pruning_ratio: Iterable[str]) -> None:
    """Refuses ceilings of groups that there are not."""
    names = [group.name for group in groups]
    unknown = [name for name in max_pruning_ratio if name not in names]
    if unknown:
        raise PruneError(
            f"max_pruning_ratio names no group of filters: {', '.join(map(repr, unknown))}",
            fix="; ".join(nearest(name, names) for name in unknown),
        )


def floors(
    groups: tuple[Group, ...],
    min_filters_fraction: float,
    round_to: int,
    max_pruning_ratio: Mapping[str, float] | None = None,
) -> dict[str, int]:
    """Units that each group keeps at least, rounded up to the multiple.

    Args:
        groups: the groups of the model before the first removal.
        min_filters_fraction: share of a group's units, in [0, 1].
        round_to: kept counts are multiples of it; a group of no more units than that stays whole.
        max_pruning_ratio: name of a group -> the largest share of its units that may go, in [0, 1].

    Raises:
        PruneError: ceilings of groups that the model does not have.
    """
    limits = dict(max_pruning_ratio or {})
    check_ceilings(groups, limits)
    least = {}
    for group in groups:
        size = len(group.units)
        share = max(min_filters_fraction, 1 - limits.get(group.name, 1.0))
        # Before rounding up: 0.7 * 10 must not become 8.
        wanted = max(1, math.ceil(round(share * size, 6)))
        least[group.name] = min(size, math.ceil(wanted / round_to) * round_to)
    return least


def at_floors(dependencies: DependencyGraph, least: Mapping[str, int]) -> np.ndarray:
    """The units that go when every group is down to its floor."""
    removed = np.zeros(len(dependencies.frozen), bool)
    for group in dependencies.groups:
        removed[group.units[least[group.name] :]] = True
    return removed


def select(
    dependencies: DependencyGraph,
    rankings: Mapping[str, Ranking],
    price: Price,
    limit: float,
    least: Mapping[str, int],
    round_to: int,
) -> np.ndarray:
    """The units to remove.

    Args:
        dependencies: the model's graph.
        rankings: name of a group -> its scores; a group that is not among them stays whole.
        price: units to remove, a mark for each -> what the model then costs.
        limit: what it may cost.
        least: name of a group -> units it keeps at least, see `floors`.
        round_to: kept counts are multiples of it where the floor allows.

    Returns:
        Marks over all units, (units of the coupling,) bool.

    Raises:
        PruneError: the limit is below what all ranked groups at their floors cost.
    """
    blocks = sorted(
        (b for r in rankings.values() for b in _blocks(r, least[r.group.name], round_to)),
        key=lambda block: block.score,
    )

    def removed(count: int) -> np.ndarray:
        marks = np.zeros(len(dependencies.frozen), bool)
        for block in blocks[:count]:
            marks[block.units] = True
        return marks

    low, high = 0, len(blocks)
    lowest = price(removed(high))
    if lowest > limit:
        raise PruneError(
            f"the model cannot be cut to a cost of {limit:,.6g}",
            expected=f"at least {lowest:,.6g}",
            received=f"{limit:,.6g}",
        )
    while low < high:
        middle = (low + high) // 2
        if price(removed(middle)) <= limit:
            high = middle
        else:
            low = middle + 1
    marks, settled = removed(low), set[str]()
    for block in reversed(blocks[max(0, low - _RETURNS) : low]):
        without = marks.copy()
        without[block.units] = False
        if block.group not in settled and price(without) <= limit:
            marks = without
        else:  # what is lower in the same group goes as well
            settled.add(block.group)
    return marks


def _blocks(ranking: Ranking, least: int, round_to: int) -> list[_Block]:
    """A group's units, lowest first, in blocks that each leave a multiple; scores ascend."""
    order = np.argsort(ranking.scores, kind="stable")
    size = len(order)
    first = (size - 1) // round_to * round_to
    kept = [size, *(count for count in range(first, 0, -round_to) if count >= least)]
    blocks = []
    for before, after in itertools.pairwise(kept):
        chosen = order[size - before : size - after]
        score = float(ranking.scores[chosen].mean())
        blocks.append(_Block(ranking.group.name, score, ranking.group.units[chosen]))
    return blocks
