"""Rank filters: score the units of every group of filters by a criterion.

    criterion(candidate)  ->  one row of scores per member layer, (members, units), or one row

`rank` divides each row as `normalize` says, so that layers with large and small weights can be
compared across the model, and averages the rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kpipe.errors import PruneError, nearest
from kpipe.prune.dependencies.dependency_graph import DependencyGraph, Group, build_dependencies
from kpipe.prune.ranking.activation_criteria import apoz, mean_activation, taylor
from kpipe.prune.ranking.candidate import Candidate, Criterion
from kpipe.prune.ranking.measurements import Measurements
from kpipe.prune.ranking.reconstruction import reconstruction
from kpipe.prune.ranking.weight_criteria import bn_scale, geometric_median, l1, l2, random
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["CRITERIA", "Ranking", "find_criterion", "rank", "rank_groups"]


@dataclass(frozen=True)
class Ranking:
    """The scores of a group.

    Args:
        group: the group; `group.channels` are the output channels of `group.layer` that make its
            units.
        scores: one score per unit, (units,); the lowest matters least.

    Example:
        >>> import keras
        >>> from kpipe.prune import rank
        >>> layers = [keras.layers.Dense(4, name="hidden"), keras.layers.Dense(2)]
        >>> model = keras.Sequential([keras.Input((3,)), *layers])
        >>> ranking = rank(model, "l2")["hidden"]
        >>> weakest = ranking.group.channels[ranking.scores.argmin()]
    """

    group: Group
    scores: np.ndarray


CRITERIA: dict[str, Criterion] = {
    "apoz": apoz,
    "bn_scale": bn_scale,
    "geometric_median": geometric_median,
    "l1": l1,
    "l2": l2,
    "mean_activation": mean_activation,
    "random": random,
    "reconstruction": reconstruction,
    "taylor": taylor,
}

# How scores of different layers become comparable; "mean" unless another way is known to be better.
_DEFAULT_NORMALIZE = {"reconstruction": "l2"}

_NORMALIZERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda scores: np.ones((len(scores), 1)),
    "mean": lambda scores: scores.mean(axis=1, keepdims=True),
    "max": lambda scores: scores.max(axis=1, keepdims=True),
    "l2": lambda scores: np.sqrt(np.square(scores).sum(axis=1, keepdims=True)),
}


@names_wrong_kinds
def rank(
    model: keras.Model,
    criterion: str | Criterion = "l1",
    data: Iterable[Any] | None = None,
    *,
    normalize: str | None = None,
    ignored_layers: Iterable[str] = (),
    seed: int = 0,
) -> dict[str, Ranking]:
    """Score every group of filters that can be removed.

    Args:
        model: a built Functional or Sequential model.
        criterion: a name in `CRITERIA`, or a function (candidate) -> scores (members, units) or
            (units,), or None for a group that it cannot score.
        data: passed to the criterion. "apoz", "mean_activation" and "reconstruction" need batches
            of images as the model takes them, `(batch, height, width, channels)`; "taylor" needs
            (images, labels).
        normalize: what each layer's scores in a group are divided by, so that layers can be
            compared and averaged: their "mean", "max" or "l2" norm, or "none". None is "l2" for
            "reconstruction" and "mean" for all other criteria.
        ignored_layers: layers whose filters must stay.
        seed: for criteria that draw random numbers.

    Returns:
        Group name (its first layer) -> `Ranking`, in the order of the graph, without the groups
        that the criterion cannot score.

    Raises:
        PruneError: an unknown criterion or normalization, scores of the wrong shape or not finite,
            or data that the criterion cannot use.

    Warns:
        UserWarning: the names of groups that the criterion cannot score.

    Example:
        >>> import keras
        >>> from kpipe.prune import rank
        >>> conv = keras.layers.Conv2D(2, 1, name="conv")
        >>> layers = [conv, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
        >>> kernel = conv.kernel.assign([[[[1.0, -3.0]]]])
        >>> rank(model, "l1", normalize="none")["conv"].scores
        array([1., 3.])
    """
    dependencies = build_dependencies(model, ignored_layers)
    return rank_groups(dependencies, criterion, data, normalize=normalize, seed=seed)


def rank_groups(
    dependencies: DependencyGraph,
    criterion: str | Criterion,
    data: Iterable[Any] | None = None,
    *,
    normalize: str | None = None,
    seed: int = 0,
) -> dict[str, Ranking]:
    """Return what `rank` returns, for a model whose dependency graph is already built."""
    function = find_criterion(criterion)
    if normalize is None:
        normalize = _DEFAULT_NORMALIZE.get(str(criterion), "mean")
    if normalize not in _NORMALIZERS:
        raise PruneError(
            f"unknown normalization {normalize!r}", fix=nearest(normalize, _NORMALIZERS)
        )
    ranked, unscored = {}, []
    measurements = Measurements(dependencies, data)
    for group in dependencies.groups:
        result = function(Candidate(group, data, seed, dependencies, measurements))
        if result is None:
            unscored.append(group.name)
            continue
        raw = np.asarray(result, np.float64)
        _check(raw, group, criterion)
        rows = np.atleast_2d(raw)
        divisor = _NORMALIZERS[normalize](rows)
        # In a layer whose weights are all zero, no filter matters more than another.
        scores = np.divide(rows, divisor, out=np.zeros_like(rows), where=divisor != 0)
        ranked[group.name] = Ranking(group, scores.mean(axis=0))
    if unscored:
        warnings.warn(
            f"the criterion {criterion!r} cannot score the filters of {', '.join(unscored)}; they "
            "stay",
            stacklevel=3,
        )
    return ranked


def find_criterion(criterion: str | Criterion) -> Criterion:
    """Return the function of a criterion's name; a function is returned unchanged."""
    if callable(criterion):
        return criterion
    if criterion not in CRITERIA:
        raise PruneError(
            f"unknown criterion {criterion!r}",
            expected="the name of a criterion, or a function (candidate) -> scores",
            fix=nearest(criterion, CRITERIA),
        )
    return CRITERIA[criterion]


def _check(raw: np.ndarray, group: Group, criterion: str | Criterion) -> None:
    units, members = len(group.units), len(group.members)
    if raw.shape not in ((units,), (members, units)) or not np.isfinite(raw).all():
        raise PruneError(
            f"criterion {criterion!r} returned invalid scores for group {group.name!r}",
            expected=f"finite scores of shape ({members}, {units}) or ({units},)",
            received=f"shape {raw.shape}, {np.count_nonzero(~np.isfinite(raw))} not finite",
        )
