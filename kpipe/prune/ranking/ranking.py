"""How much filters matter: one score per unit of a group, the lowest removed first.

    criterion(candidate) -> scores, (members, units)

    row     one layer whose filters make the group's units
    column  one unit: the filters, one or more per layer, that are kept or removed together

`rank` divides each row as `normalize` says, so that layers of large and small weights can be
compared across the whole model, and takes the mean over the rows.
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
from kpipe.prune.dependencies.registry import rule_of
from kpipe.prune.graph.tracing import read
from kpipe.prune.ranking.activation_criteria import apoz, mean_activation, taylor
from kpipe.prune.ranking.measurements import Measured
from kpipe.prune.ranking.reconstruction import reconstruction
from kpipe.prune.ranking.weight_criteria import bn_scale, geometric_median, l1, l2, random

__all__ = ["CRITERIA", "Candidate", "Criterion", "Ranking", "find_criterion", "rank", "score"]


@dataclass(frozen=True)
class Candidate:
    """What a criterion is given.

    Args:
        group: the units to score.
        model: the model they are in.
        data: whatever the caller handed to `rank`, for criteria that look at activations.
        seed: for criteria that draw.
        dependencies: the whole model's groups.
        measured: what the model does on the data, measured when it is first asked for.
    """

    group: Group
    model: keras.Model
    data: Any
    seed: int
    dependencies: DependencyGraph
    measured: Measured

    def filters(self, layer: str) -> np.ndarray:
        """The weights of the filters that make each unit in one member layer.

        Returns:
            (units, weights): where a unit is made by several filters of the layer, all of them.
        """
        (operation,) = self.dependencies.graph.find([layer])
        rule = rule_of(operation)
        chosen = self.group.members[layer]
        parts = []
        for name, axis in (rule.filters if rule else {}).items():
            place = list(operation.weights).index(name)
            kernel = operation.source.weights[place].numpy()
            rows = np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)
            parts.append(rows[chosen].reshape(len(chosen), -1))
        return np.concatenate(parts, axis=1)

    def of_units(self, layer: str, values: np.ndarray) -> np.ndarray:
        """A value of each of a member layer's channels, (channels,) -> of each unit, (units,)."""
        return np.asarray(values)[self.group.members[layer]].mean(axis=1)


Criterion = Callable[[Candidate], np.ndarray | None]


@dataclass(frozen=True)
class Ranking:
    """The scores of a group.

    Args:
        group: the group; `group.channels` are the output channels of `group.layer` it stands for.
        scores: one score per unit, (units,); the lowest matters least.
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

# What makes scores of different layers comparable; "mean" where nothing else is known to be better.
_USUAL = {"reconstruction": "l2"}

_NORMALIZERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda scores: np.ones((len(scores), 1)),
    "mean": lambda scores: scores.mean(axis=1, keepdims=True),
    "max": lambda scores: scores.max(axis=1, keepdims=True),
    "l2": lambda scores: np.sqrt(np.square(scores).sum(axis=1, keepdims=True)),
}


def rank(
    model: keras.Model,
    criterion: str | Criterion = "l1",
    data: Any = None,
    *,
    normalize: str | None = None,
    ignored_layers: Iterable[str] = (),
    seed: int = 0,
) -> dict[str, Ranking]:
    """Scores every group of filters that can be removed.

    Args:
        model: a built Functional or Sequential model.
        criterion: a name of `CRITERIA`, or a function (candidate) -> (members, units) or (units,),
            or None for a group that it cannot judge.
        data: handed to the criterion. "apoz", "mean_activation" and "reconstruction" want batches
            of images as the model takes them, `(batch, height, width, channels)`; "taylor" wants
            (images, labels).
        normalize: what a layer's scores are divided by before they are compared across layers and
            averaged over the layers of a group: "mean", "max" or "l2" norm of that layer's scores
            in the group, or "none". None for what suits the criterion: "l2" for "reconstruction",
            "mean" for all others.
        ignored_layers: layers whose filters must stay.
        seed: for criteria that draw.

    Returns:
        Name of a group (its first layer) -> its `Ranking`, in the order of the graph; without the
        groups that the criterion cannot judge.

    Raises:
        PruneError: an unknown criterion or normalization, scores of the wrong shape or not finite,
            or data that the criterion cannot use.

    Warns:
        UserWarning: groups that the criterion cannot judge, by name.
    """
    dependencies = build_dependencies(read(model), ignored_layers)
    return score(dependencies, model, criterion, data, normalize=normalize, seed=seed)


def score(
    dependencies: DependencyGraph,
    model: keras.Model,
    criterion: str | Criterion,
    data: Any = None,
    *,
    normalize: str | None = None,
    seed: int = 0,
) -> dict[str, Ranking]:
    """`rank` on a graph that is already coupled."""
    function = find_criterion(criterion)
    if normalize is None:
        normalize = _USUAL.get(str(criterion), "mean")
    if normalize not in _NORMALIZERS:
        raise PruneError(
            f"unknown normalization {normalize!r}", fix=nearest(normalize, _NORMALIZERS)
        )
    ranked, unjudged = {}, []
    measured = Measured(dependencies, model, data)
    for group in dependencies.groups:
        given = function(Candidate(group, model, data, seed, dependencies, measured))
        if given is None:
            unjudged.append(group.name)
            continue
        raw = np.asarray(given, np.float64)
        _check(raw, group, criterion)
        rows = np.atleast_2d(raw)
        divisor = _NORMALIZERS[normalize](rows)
        # A layer whose weights are all zero says nothing about which of its filters matter.
        scores = np.divide(rows, divisor, out=np.zeros_like(rows), where=divisor != 0)
        ranked[group.name] = Ranking(group, scores.mean(axis=0))
    if unjudged:
        warnings.warn(
            f"the criterion {criterion!r} cannot judge the filters of {', '.join(unjudged)}, which "
            "so all stay",
            stacklevel=3,
        )
    return ranked


def find_criterion(criterion: str | Criterion) -> Criterion:
    """The function of a criterion's name; a function is returned as it is."""
    if callable(criterion):
        return criterion
    if criterion not in CRITERIA:
        raise PruneError(
            f"unknown criterion {criterion!r}",
            expected="the name of a criterion, or a function (candidate) -> scores",
            fix=nearest(str(criterion), CRITERIA),
        )
    return CRITERIA[criterion]


def _check(raw: np.ndarray, group: Group, criterion: str | Criterion) -> None:
    units, members = len(group.units), len(group.members)
    if raw.shape not in ((units,), (members, units)) or not np.isfinite(raw).all():
        raise PruneError(
            f"criterion {criterion!r} gave no usable scores for group {group.name!r}",
            expected=f"finite scores of shape ({members}, {units}) or ({units},)",
            received=f"shape {raw.shape}, {np.count_nonzero(~np.isfinite(raw))} not finite",
        )
