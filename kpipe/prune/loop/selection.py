"""Choose the units to remove so that the model meets a target.

    chunk     units of one group that are removed together: the next lowest, down to a
              multiple of `round_to`
    order     chunks of all groups by mean score
    removed   the shortest prefix of that order that meets the target, without chunks that can be
              restored because the last one saved more than needed

This is integer arithmetic on the graph, for multiply-accumulates and parameters. For a target in
milliseconds, see `kpipe.prune.loop.latency_search`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kpipe.errors import PruneError, nearest
from kpipe.prune.dependencies.dependency_graph import DependencyGraph, Group
from kpipe.prune.loop.targets import RemovalCost
from kpipe.prune.ranking.ranking import Ranking
from kpipe.wrong_kinds import names_wrong_kinds_of_fields

__all__ = [
    "Selection",
    "check_max_pruning_ratio",
    "largest_removal",
    "min_units",
    "select",
]

_MAX_RESTORED = 16  # chunks that may be restored after the target is met


@names_wrong_kinds_of_fields
@dataclass(frozen=True)
class Selection:
    """How filters are chosen for removal.

    Args:
        round_to: the number of filters kept in each group is a multiple of it, because odd numbers
            can run slower than the unpruned model; a group of no more filters stays whole.
        min_filters_fraction: minimum fraction of filters to keep in each group, in [0, 1].
        normalize: how scores are compared across layers: "mean", "max", "l2" or "none"; None for
            the default of the criterion, see `rank`.
        max_pruning_ratio: name of a group of filters (see `rank`) -> the largest fraction of them
            that may be removed, in [0, 1]; `Sensitivity.max_pruning_ratio` computes it.
        ignored_layers: layers whose filters must stay.
        blocks: whether whole residual blocks may be removed for a target in milliseconds. A block
            stays if it holds a layer of `ignored_layers`, or a whole group whose
            `max_pruning_ratio` is below 1.
        data: passed to the criterion; None for the calibration images.
        seed: seed of the criterion, and of Keras' random state at the start of each round.

    Example:
        >>> from kpipe.prune import Selection
        >>> selection = Selection(round_to=4, max_pruning_ratio={"head": 0.5})
        >>> selection.min_filters_fraction
        0.1
    """

    round_to: int = 8
    min_filters_fraction: float = 0.1
    normalize: str | None = None
    max_pruning_ratio: Mapping[str, float] = field(default_factory=dict)
    ignored_layers: tuple[str, ...] = ()
    blocks: bool = True
    data: Iterable[Any] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.round_to >= 1:
            raise PruneError(
                "round_to of the selection is out of range",
                expected="a whole number of at least 1",
                received=f"round_to={self.round_to}",
            )
        if not 0 <= self.min_filters_fraction <= 1:
            raise PruneError(
                "min_filters_fraction of the selection is out of range",
                expected="a fraction in [0, 1]",
                received=f"min_filters_fraction={self.min_filters_fraction}",
            )
        wrong = {
            name: ratio for name, ratio in self.max_pruning_ratio.items() if not 0 <= ratio <= 1
        }
        if wrong:
            raise PruneError(
                "max_pruning_ratio of the selection is out of range",
                expected="name of a group -> fraction of its filters, in [0, 1]",
                received=str(wrong),
            )


@dataclass(frozen=True)
class _Chunk:
    group: str
    score: float
    units: np.ndarray


def check_max_pruning_ratio(groups: Iterable[Group], max_pruning_ratio: Iterable[str]) -> None:
    """Refuse names of groups that the model does not have."""
    names = [group.name for group in groups]
    unknown = [name for name in max_pruning_ratio if name not in names]
    if unknown:
        raise PruneError(
            f"max_pruning_ratio names no group of filters: {', '.join(map(repr, unknown))}",
            fix="; ".join(nearest(name, names) for name in unknown),
        )


def min_units(groups: tuple[Group, ...], selection: Selection) -> dict[str, int]:
    """Return group name -> minimum number of units to keep, rounded up to a multiple.

    Raises:
        PruneError: a name in `max_pruning_ratio` that is not a group of the model.
    """
    ratios, round_to = selection.max_pruning_ratio, selection.round_to
    check_max_pruning_ratio(groups, ratios)
    minimum = {}
    for group in groups:
        size = len(group.units)
        fraction = max(selection.min_filters_fraction, 1 - ratios.get(group.name, 1.0))
        # Round first: 0.7 * 10 must not become 8.
        wanted = max(1, math.ceil(round(fraction * size, 6)))
        minimum[group.name] = min(size, math.ceil(wanted / round_to) * round_to)
    return minimum


def largest_removal(dependencies: DependencyGraph, minimum: Mapping[str, int]) -> np.ndarray:
    """Return the mask that reduces every group to its minimum, (units,) bool."""
    removed = dependencies.nothing()
    for group in dependencies.groups:
        removed[group.units[minimum[group.name] :]] = True
    return removed


def select(
    dependencies: DependencyGraph,
    rankings: Mapping[str, Ranking],
    cost: RemovalCost,
    limit: float,
    minimum: Mapping[str, int],
    round_to: int,
) -> np.ndarray:
    """Choose the units to remove.

    Args:
        dependencies: of the model.
        rankings: group name -> scores; groups that are missing stay whole.
        cost: mask of the units removed -> cost of the model.
        limit: what the model may cost.
        minimum: group name -> minimum number of units to keep, see `min_units`.
        round_to: kept counts are multiples of it where the minimum allows.

    Returns:
        Mask of the units to remove, (units,) bool.

    Raises:
        PruneError: the model exceeds the limit even with all ranked groups at their minimum.
    """
    chunks = sorted(
        (c for r in rankings.values() for c in _chunks(r, minimum[r.group.name], round_to)),
        key=lambda chunk: chunk.score,
    )

    def removed(count: int) -> np.ndarray:
        mask = dependencies.nothing()
        for chunk in chunks[:count]:
            mask[chunk.units] = True
        return mask

    low, high = 0, len(chunks)
    lowest = cost(removed(high))
    if lowest > limit:
        raise PruneError(
            f"the model cannot be pruned to a cost of {limit:,.6g}",
            expected=f"at least {lowest:,.6g}",
            received=f"{limit:,.6g}",
        )
    while low < high:
        middle = (low + high) // 2
        if cost(removed(middle)) <= limit:
            high = middle
        else:
            low = middle + 1
    mask, settled = removed(low), set[str]()
    for chunk in reversed(chunks[max(0, low - _MAX_RESTORED) : low]):
        restored = mask.copy()
        restored[chunk.units] = False
        if chunk.group not in settled and cost(restored) <= limit:
            mask = restored
        else:  # the lower chunks of this group stay removed too
            settled.add(chunk.group)
    return mask


def _chunks(ranking: Ranking, minimum: int, round_to: int) -> list[_Chunk]:
    """A group's units, lowest first, in chunks that each leave a multiple; scores ascend."""
    order = np.argsort(ranking.scores, kind="stable")
    size = len(order)
    first = (size - 1) // round_to * round_to
    kept = [size, *(count for count in range(first, 0, -round_to) if count >= minimum)]
    chunks = []
    for before, after in itertools.pairwise(kept):
        chosen = order[size - before : size - after]
        score = float(ranking.scores[chosen].mean())
        chunks.append(_Chunk(ranking.group.name, score, ranking.group.units[chosen]))
    return chunks
