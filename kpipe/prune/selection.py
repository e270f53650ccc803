"""Which units go, so that the model costs no more than asked.

    block     units of one group that go at once: the next lowest, down to a multiple of 8
    order     blocks of all groups by mean score
    answer    the shortest beginning of that order that meets the target

Everything here is integer arithmetic on the graph: no model is built to try a choice.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kpipe.errors import PruneError
from kpipe.prune.criteria import Ranking
from kpipe.prune.groups import Coupling, Group
from kpipe.prune.macs import Terms, kept_width, terms

__all__ = ["floors", "least_macs", "select"]


@dataclass(frozen=True)
class _Block:
    score: float
    units: np.ndarray


def floors(groups: tuple[Group, ...], floor: float, multiple: int) -> dict[str, int]:
    """Units that each group keeps at least: a share of them, rounded up to the multiple.

    Args:
        groups: the groups of the model before the first removal.
        floor: share of a group's units, in [0, 1].
        multiple: kept counts are multiples of it; a group of no more units than that stays whole.
    """
    least = {}
    for group in groups:
        size = len(group.units)
        wanted = max(1, math.ceil(floor * size))
        least[group.name] = min(size, math.ceil(wanted / multiple) * multiple)
    return least


def least_macs(coupling: Coupling, least: Mapping[str, int]) -> int:
    """Multiply-accumulates when every group is down to its floor."""
    removed = np.zeros(len(coupling.frozen), bool)
    for group in coupling.groups:
        removed[group.units[least[group.name] :]] = True
    return _cost(coupling, terms(coupling.graph), removed)


def select(
    coupling: Coupling,
    rankings: Mapping[str, Ranking],
    target: int,
    least: Mapping[str, int],
    multiple: int,
) -> np.ndarray:
    """The units to remove.

    Args:
        coupling: the model's graph.
        rankings: name of a group -> its scores.
        target: multiply-accumulates the model may cost afterwards.
        least: name of a group -> units it keeps at least, see `floors`.
        multiple: kept counts are multiples of it where the floor allows.

    Returns:
        Marks over all units, (units of the coupling,) bool.

    Raises:
        PruneError: the target is below what all groups at their floors cost.
    """
    blocks = sorted(
        (b for r in rankings.values() for b in _blocks(r, least[r.group.name], multiple)),
        key=lambda block: block.score,
    )
    costs = terms(coupling.graph)

    def removed(count: int) -> np.ndarray:
        marks = np.zeros(len(coupling.frozen), bool)
        for block in blocks[:count]:
            marks[block.units] = True
        return marks

    low, high = 0, len(blocks)
    if _cost(coupling, costs, removed(high)) > target:
        raise PruneError(
            f"the model cannot be cut to {target:,} multiply-accumulates",
            expected=f"at least {_cost(coupling, costs, removed(high)):,}",
            received=f"{target:,}",
        )
    while low < high:
        middle = (low + high) // 2
        if _cost(coupling, costs, removed(middle)) <= target:
            high = middle
        else:
            low = middle + 1
    return removed(low)


def _blocks(ranking: Ranking, least: int, multiple: int) -> list[_Block]:
    """A group's units, lowest first, in blocks that each leave a multiple; scores ascend."""
    order = np.argsort(ranking.scores, kind="stable")
    size = len(order)
    first = (size - 1) // multiple * multiple
    kept = [size, *(count for count in range(first, 0, -multiple) if count >= least)]
    blocks = []
    for before, after in itertools.pairwise(kept):
        chosen = order[size - before : size - after]
        score = float(ranking.scores[chosen].mean())
        blocks.append(_Block(score, ranking.group.units[chosen]))
    return blocks


def _cost(coupling: Coupling, costs: list[Terms], removed: np.ndarray) -> int:
    width = kept_width(coupling, removed)
    return sum(term.macs(width) for term in costs)
