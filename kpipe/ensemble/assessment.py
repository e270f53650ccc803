"""What an ensemble brings: its members, their combinations, and how far they differ.

average, geometric, vote    of equal members
weighted, greedy            averages with the weights of `fit_weights` and `select`
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike

from kpipe.ensemble.combination import LOWEST, tie_break
from kpipe.ensemble.predictions import check_predictions
from kpipe.ensemble.selection import fit_weights, select
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["Assessment", "Combination", "Score", "assess"]

Combination: TypeAlias = Literal["average", "geometric", "weighted", "greedy", "vote"]


@dataclass(frozen=True)
class Score:
    """How good one member or combination is on some photos.

    Args:
        name: "member 1", ..., or the name of a combination.
        loss: mean cross-entropy. That of a vote says little: its fractions are no probabilities.
        accuracy: fraction of photos predicted correctly, in [0, 1].
        weights: of the members, with a sum of 1.

    Example:
        >>> from kpipe.ensemble import Score
        >>> Score("member 1", loss=0.4, accuracy=0.88, weights=(1.0, 0.0)).accuracy
        0.88
    """

    name: str
    loss: float
    accuracy: float
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Assessment:
    """What an ensemble brings on some photos.

    Args:
        members: a score for each member.
        combinations: a score for each combination, by name.
        disagreement: fraction of photos for which two members predict different classes, for each
            pair, (members, members); 0 on the diagonal.
        oracle: fraction of photos that at least one member predicts correctly: the upper limit of
            any choice between the members.
        photos: number of photos.

    Example:
        >>> from kpipe.ensemble import assess
        >>> found = assess([[[0.9, 0.1], [0.8, 0.2]], [[0.3, 0.7], [0.4, 0.6]]], labels=[0, 1])
        >>> found.disagreement[0][1], found.oracle
        (1.0, 1.0)
        >>> found.best, found.combinations["average"].accuracy
        (0, 0.5)
    """

    members: tuple[Score, ...]
    combinations: dict[str, Score]
    disagreement: tuple[tuple[float, ...], ...]
    oracle: float
    photos: int

    @property
    def best(self) -> int:
        """The index of the member with the lowest cross-entropy."""
        return min(range(len(self.members)), key=lambda number: self.members[number].loss)

    def improves(self, name: str) -> bool:
        """Return whether a combination is better than the best member.

        A vote is better if its accuracy is not lower; any other, if its cross-entropy is lower.
        """
        combined, best = self.combinations[name], self.members[self.best]
        if name == "vote":
            return combined.accuracy >= best.accuracy
        return combined.loss < best.loss - 1e-9


@names_wrong_kinds
def assess(probabilities: ArrayLike, labels: ArrayLike) -> Assessment:
    """Measure what the members of an ensemble are worth, alone and combined.

    Weights are fitted on the same photos, so use validation photos, and the test photos only for
    the combination that was chosen.

    Args:
        probabilities: of the members, (members, photos, classes); see `predict_members`.
        labels: class indices, (photos,).

    Raises:
        TrainingError: invalid arrays, which include NaN.

    Example:
        >>> from kpipe.ensemble import assess
        >>> one, other = [[0.9, 0.1], [0.4, 0.6]], [[0.6, 0.4], [0.1, 0.9]]
        >>> found = assess([one, other], labels=[0, 1])
        >>> [member.accuracy for member in found.members], round(found.members[0].loss, 3)
        ([1.0, 1.0], 0.308)
        >>> list(found.combinations)
        ['average', 'geometric', 'weighted', 'greedy', 'vote']
    """
    array, targets = check_predictions(probabilities, labels)
    count = len(array)
    equal = np.full(count, 1 / count)
    weights = dict.fromkeys(get_args(Combination), equal)
    weights |= {"weighted": fit_weights(array, targets), "greedy": select(array, targets)}
    predicted = array.argmax(axis=2)
    differ = (predicted[:, None] != predicted[None]).mean(axis=2)
    return Assessment(
        members=tuple(
            _score(f"member {number}", rows, targets, np.eye(count)[number - 1])
            for number, rows in enumerate(array, 1)
        ),
        combinations={
            name: _score(name, _combined(array, name, w), targets, w) for name, w in weights.items()
        },
        disagreement=tuple(tuple(map(float, row)) for row in differ),
        oracle=float((predicted == targets).any(axis=0).mean()),
        photos=len(targets),
    )


def _combined(array: np.ndarray, name: str, weights: np.ndarray) -> np.ndarray:
    """Return the probabilities of a combination, (photos, classes)."""
    if name == "vote":
        ballots = array == array.max(axis=2, keepdims=True)
        fractions = (ballots / ballots.sum(axis=2, keepdims=True)).mean(axis=0)
        share = tie_break(len(array))
        voted: np.ndarray = (1 - share) * fractions + share * array.mean(axis=0)
        return voted
    if name == "geometric":
        logs = np.tensordot(weights, np.log(np.maximum(array, LOWEST)), 1)
        product = np.exp(logs - logs.max(axis=1, keepdims=True))
        normalized: np.ndarray = product / product.sum(axis=1, keepdims=True)
        return normalized
    mean: np.ndarray = np.tensordot(weights, array, 1)
    return mean


def _score(name: str, rows: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Score:
    truth = np.maximum(rows[np.arange(len(labels)), labels], LOWEST)
    return Score(
        name,
        loss=float(-np.log(truth).mean()),
        accuracy=float((rows.argmax(axis=1) == labels).mean()),
        weights=tuple(map(float, weights)),
    )
