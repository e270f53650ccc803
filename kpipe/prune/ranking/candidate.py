"""What a criterion scores, and what it may look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kpipe.prune.dependencies.dependency_graph import DependencyGraph, Group
from kpipe.prune.dependencies.registry import rule_of
from kpipe.prune.ranking.measurements import Measurements

__all__ = ["Candidate", "Criterion"]


@dataclass(frozen=True)
class Candidate:
    """A group of filters, the argument of a criterion.

    Args:
        group: the units to score.
        data: the `data` argument of `rank`, for criteria that look at activations.
        seed: for criteria that draw random numbers.
        dependencies: the dependency graph of the whole model.
        measurements: activations and errors on the data, measured on first use.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from kpipe.prune import Candidate, rank
        >>> def variance(candidate: Candidate) -> np.ndarray:
        ...     return np.stack([candidate.filters(m).var(axis=1) for m in candidate.group.members])
        >>> layers = [keras.layers.Dense(4, name="hidden"), keras.layers.Dense(2)]
        >>> model = keras.Sequential([keras.Input((3,)), *layers])
        >>> rank(model, variance)["hidden"].scores.shape
        (4,)
    """

    group: Group
    data: Any
    seed: int
    dependencies: DependencyGraph
    measurements: Measurements

    @property
    def model(self) -> keras.Model:
        """The model that holds the group."""
        return self.dependencies.model

    def filters(self, layer: str) -> np.ndarray:
        """Return the weights of the filters of one member layer that make each unit.

        Returns:
            (units, weights); if several filters of the layer make a unit, the weights of all.
        """
        (operation,) = self.dependencies.graph.find([layer])
        rule = rule_of(operation)
        chosen = self.group.members[layer]
        parts = []
        for name, axis in (rule.filter_axes if rule else {}).items():
            place = list(operation.weights).index(name)
            kernel = operation.source.weights[place].numpy()
            rows = np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)
            parts.append(rows[chosen].reshape(len(chosen), -1))
        return np.concatenate(parts, axis=1)

    def per_unit(self, layer: str, values: np.ndarray) -> np.ndarray:
        """Average a value per output channel of a member layer, (channels,), to (units,)."""
        return np.asarray(values)[self.group.members[layer]].mean(axis=1)


Criterion = Callable[[Candidate], np.ndarray | None]
