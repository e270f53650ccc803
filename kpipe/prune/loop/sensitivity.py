r"""How much each group of filters can lose: removed alone, without retraining.

    group \\ share removed   0.25    0.5     0.75
    conv1                   0.881   0.874   0.802   what `evaluate` then says
    conv2                   0.880   0.612   0.110

Read as ceilings for `prune_filters`: the largest share that costs no more than a tolerance.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kpipe.errors import PruneError
from kpipe.prune.dependencies.dependency_graph import build_dependencies
from kpipe.prune.graph.tracing import read
from kpipe.prune.ranking.ranking import Criterion, score
from kpipe.prune.scores import score_of
from kpipe.prune.surgery.batch_norm_statistics import Reference
from kpipe.prune.surgery.planning import plan_units, remove_filters

__all__ = ["Sensitivity", "scan_sensitivity"]


@dataclass(frozen=True)
class Sensitivity:
    """What the removal of a share of one group of filters does.

    Args:
        whole: the score of the model as it was.
        scores: name of a group (see `rank`) -> {share removed: score}, shares ascending.
    """

    whole: float
    scores: Mapping[str, Mapping[float, float]]

    def max_pruning_ratio(self, tolerance: float) -> dict[str, float]:
        """Name of a group -> the largest share before the score first falls by more than that.

        Args:
            tolerance: 0 or more, in the unit of the score.
        """
        found = {}
        for name, row in self.scores.items():
            found[name] = 0.0
            for share, value in row.items():
                if value < self.whole - tolerance:
                    break
                found[name] = share
        return found


def scan_sensitivity(
    model: keras.Model,
    evaluate: Callable[[keras.Model], float],
    *,
    shares: Sequence[float] = (0.25, 0.5, 0.75),
    criterion: str | Criterion = "l1",
    data: Any = None,
    ignored_layers: Iterable[str] = (),
    calibration: Iterable[Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Sensitivity:
    """Removes shares of each group alone, the lowest by a criterion, and looks at the score.

    Args:
        model: a built Functional or Sequential model; left as it is.
        evaluate: (uncompiled model) -> a score on validation data, higher is better.
        shares: of a group's filters, ascending, in (0, 1); one filter of each group stays.
        criterion: see `rank`; groups that it cannot judge are not scanned.
        data: handed to the criterion; None for the images of the calibration.
        ignored_layers: layers whose filters must stay.
        calibration: batches of images, on which the statistics of BatchNormalization are shifted
            by what each removal changes, see `shift_statistics`; None leaves them.
        progress: called as `progress(done, total)`.

    Raises:
        PruneError: shares out of range or order.
    """
    listed = list(shares) if isinstance(shares, Iterable) else []
    numbered = bool(listed) and all(isinstance(share, numbers.Real) for share in listed)
    if not numbered or listed != sorted(set(listed)) or not 0 < listed[0] <= listed[-1] < 1:
        raise PruneError(
            "shares cannot be scanned like this",
            expected="ascending numbers in (0, 1)",
            received=repr(shares),
        )

    def scored(removal: np.ndarray) -> float:
        chosen = plan_units(dependencies, removal)
        small = remove_filters(model, chosen)  # where nothing goes a copy, which may be compiled
        if reference is not None and removal.any():
            reference.shift(small, chosen)
        return score_of(evaluate(small))

    dependencies = build_dependencies(read(model), ignored_layers)
    if isinstance(calibration, Iterator):  # it is read more than once
        calibration = list(calibration)
    rankings = score(dependencies, model, criterion, calibration if data is None else data)
    reference = None if calibration is None else Reference(model, calibration)
    total, done = len(rankings) * len(shares), 0
    scores: dict[str, dict[float, float]] = {}
    for name, ranking in rankings.items():
        order = ranking.group.units[np.argsort(ranking.scores, kind="stable")]
        scores[name] = {}
        for share in shares:
            removed = np.zeros(len(dependencies.frozen), bool)
            removed[order[: min(round(share * len(order)), len(order) - 1)]] = True
            scores[name][float(share)] = scored(removed)
            done += 1
            if progress is not None:
                progress(done, total)
    return Sensitivity(scored(np.zeros(len(dependencies.frozen), bool)), scores)
