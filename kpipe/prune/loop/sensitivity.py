r"""How many filters each group can lose: removed from one group at a time, without retraining.

    group \\ fraction removed   0.25    0.5     0.75
    conv1                      0.881   0.874   0.802   what `evaluate` then returns
    conv2                      0.880   0.612   0.110

`Sensitivity.max_pruning_ratio` turns the table into limits for `prune_filters`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kpipe.errors import PruneError
from kpipe.prune.dependencies.dependency_graph import build_dependencies
from kpipe.prune.evaluation import Evaluate, finite
from kpipe.prune.ranking.candidate import Criterion
from kpipe.prune.ranking.ranking import rank_groups
from kpipe.prune.surgery.batch_norm_statistics import ReferenceStatistics
from kpipe.prune.surgery.planning import apply_plan, plan_units
from kpipe.wrong_kinds import names_wrong_kinds, names_wrong_kinds_of_fields

__all__ = ["Sensitivity", "scan_sensitivity"]


@names_wrong_kinds_of_fields
@dataclass(frozen=True)
class Sensitivity:
    """Scores of a model after removing fractions of one group of filters at a time.

    Args:
        whole: the score of the original model.
        scores: group name (see `rank`) -> {fraction removed: score}, fractions ascending.

    Example:
        >>> from kpipe.prune import Sensitivity
        >>> scores = {"conv1": {0.25: 0.9, 0.5: 0.89}, "conv2": {0.25: 0.7, 0.5: 0.3}}
        >>> scan = Sensitivity(0.9, scores)
        >>> scan.max_pruning_ratio(tolerance=0.02)
        {'conv1': 0.5, 'conv2': 0.0}
    """

    whole: float
    scores: Mapping[str, Mapping[float, float]]

    @names_wrong_kinds
    def max_pruning_ratio(self, tolerance: float) -> dict[str, float]:
        """Return group name -> the largest fraction before the score first falls too far.

        Args:
            tolerance: how far the score may fall, 0 or more.
        """
        found = {}
        for name, row in self.scores.items():
            found[name] = 0.0
            for fraction, value in row.items():
                if value < self.whole - tolerance:
                    break
                found[name] = fraction
        return found


@names_wrong_kinds
def scan_sensitivity(
    model: keras.Model,
    evaluate: Evaluate,
    *,
    fractions: Sequence[float] = (0.25, 0.5, 0.75),
    criterion: str | Criterion = "l1",
    data: Iterable[Any] | None = None,
    ignored_layers: Iterable[str] = (),
    calibration: Iterable[Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Sensitivity:
    """Evaluate a model after removing fractions of one group of filters at a time.

    Args:
        model: a built Functional or Sequential model; not changed.
        evaluate: (uncompiled model) -> a score on validation data, higher is better.
        fractions: of a group's filters to remove, the lowest by the criterion; ascending, in
            (0, 1). One filter of each group stays.
        criterion: see `rank`; groups that it cannot score are not scanned.
        data: passed to the criterion; None for the calibration images.
        ignored_layers: layers whose filters must stay.
        calibration: batches of images, on which the statistics of BatchNormalization are shifted
            by what each removal changes, see `shift_statistics`; None leaves them.
        progress: called as `progress(done, total)`.

    Raises:
        PruneError: fractions out of range or order.

    Example:
        >>> import keras
        >>> from kpipe.prune import count_params, scan_sensitivity
        >>> layers = [keras.layers.Dense(4, name="hidden"), keras.layers.Dense(2)]
        >>> model = keras.Sequential([keras.Input((3,)), *layers])
        >>> scan_sensitivity(model, lambda small: -count_params(small), fractions=(0.5,)).scores
        {'hidden': {0.5: -14.0}}
    """
    listed = list(fractions)
    if not listed or listed != sorted(set(listed)) or not 0 < listed[0] <= listed[-1] < 1:
        raise PruneError(
            "fractions cannot be scanned",
            expected="ascending numbers in (0, 1)",
            received=f"fractions={fractions}",
        )
    dependencies = build_dependencies(model, ignored_layers)
    if isinstance(calibration, Iterator):  # it is read more than once
        calibration = list(calibration)
    rankings = rank_groups(dependencies, criterion, calibration if data is None else data)
    reference = (
        None if calibration is None else ReferenceStatistics(model, dependencies.graph, calibration)
    )

    def score(removed: np.ndarray) -> float:
        plan = plan_units(dependencies, removed)
        small = apply_plan(dependencies, plan)  # a copy if nothing is removed; it may be compiled
        if reference is not None and removed.any():
            reference.shift(small, plan)
        return finite(evaluate(small), "evaluate")

    total, done = len(rankings) * len(listed), 0
    scores: dict[str, dict[float, float]] = {}
    for name, ranking in rankings.items():
        order = ranking.group.units[np.argsort(ranking.scores, kind="stable")]
        scores[name] = {}
        for fraction in listed:
            removed = dependencies.nothing()
            removed[order[: min(round(fraction * len(order)), len(order) - 1)]] = True
            scores[name][float(fraction)] = score(removed)
            done += 1
            if progress is not None:
                progress(done, total)
    return Sensitivity(score(dependencies.nothing()), scores)
