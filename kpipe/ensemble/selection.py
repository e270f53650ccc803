"""Weights of the members, chosen on validation photos.

fit_weights := the weights with the lowest cross-entropy, of all with w >= 0 and sum(w) = 1
select      := how often each member was drawn / draws; each draw adds the member, drawn before or
               not, with which the average has the lowest cross-entropy

Both minimize -mean(log(sum of w * p)), where p are the members' probabilities of the true class.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from kpipe.ensemble.combination import LOWEST
from kpipe.ensemble.predictions import check_predictions
from kpipe.errors import TrainingError
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["fit_weights", "select"]

# Weights below it are 0: the member would cost its time and change no prediction.
_NEGLIGIBLE = 1e-4


@names_wrong_kinds
def select(probabilities: ArrayLike, labels: ArrayLike, *, draws: int = 50) -> np.ndarray:
    """Select members greedily, with replacement, by their cross-entropy on validation photos.

    The first draw is the best member. Each further draw adds the member with which the average of
    all draws is best. The result is the best average on the way. With few photos, this overfits
    less than `fit_weights`.

    Source: Caruana et al. 2004, "Ensemble selection from libraries of models".

    Args:
        probabilities: of validation photos, (members, photos, classes); see `predict_members`.
        labels: class indices, (photos,).
        draws: how many members to add at most, 1 or more.

    Returns:
        Weights for `average`: float64 (members,), 0 for members that were not selected, with a sum
        of 1.

    Raises:
        TrainingError: invalid arrays, which include NaN, or `draws` out of range.

    Example:
        >>> from kpipe.ensemble import select
        >>> good, bad = [[0.9, 0.1], [0.4, 0.6]], [[0.1, 0.9], [0.9, 0.1]]
        >>> select([good, bad], labels=[0, 1])
        array([1., 0.])
    """
    truth = _of_true_class(probabilities, labels)
    if not draws >= 1:
        raise TrainingError("draws is out of range", expected="1 or more", received=repr(draws))
    counts = np.zeros(len(truth))
    total = np.zeros(truth.shape[1])
    best, least = counts, np.inf
    for number in range(1, int(draws) + 1):
        losses = -np.log((total + truth) / number).mean(axis=1)
        chosen = int(losses.argmin())
        counts[chosen] += 1
        total += truth[chosen]
        if losses[chosen] < least - 1e-12:
            best, least = counts.copy(), losses[chosen]
    weights: np.ndarray = best / best.sum()
    return weights


@names_wrong_kinds
def fit_weights(probabilities: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """Fit the weights of a weighted average by their cross-entropy on validation photos.

    The problem is convex, so there is no better weighting of these members for these photos. Fit it
    on photos that no member was trained on.

    Args:
        probabilities: of validation photos, (members, photos, classes); see `predict_members`.
        labels: class indices, (photos,).

    Returns:
        Weights for `average`: float64 (members,), 0 or more, with a sum of 1. Those below 0.0001
        are 0.

    Raises:
        TrainingError: invalid arrays, which include NaN.

    Example:
        >>> from kpipe.ensemble import fit_weights
        >>> one, other = [[0.9, 0.1], [0.4, 0.6]], [[0.6, 0.4], [0.1, 0.9]]
        >>> fit_weights([one, other], labels=[0, 1]).round(3)
        array([0.5, 0.5])
    """
    from scipy.optimize import minimize

    truth = _of_true_class(probabilities, labels)
    count = len(truth)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        mixed = np.maximum(weights @ truth, LOWEST)
        return float(-np.log(mixed).mean()), -(truth / mixed).mean(axis=1)

    found = minimize(
        loss,
        np.full(count, 1 / count),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * count,
        constraints={
            "type": "eq",
            "fun": lambda weights: weights.sum() - 1,
            "jac": lambda weights: np.ones(count),
        },
        options={"ftol": 1e-12, "maxiter": 1000},
    )
    weights = np.where(found.x < _NEGLIGIBLE, 0, found.x)
    weights /= weights.sum()
    # Exact at the corners, where rounding may leave a little to a member that adds nothing.
    corners = np.eye(count)
    choices = [weights, *corners]
    losses = [loss(choice)[0] for choice in choices]
    fitted: np.ndarray = choices[0] if losses[0] < min(losses[1:]) else choices[np.argmin(losses)]
    return fitted


def _of_true_class(probabilities: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """Return each member's probability of the true class, float64 (members, photos)."""
    array, targets = check_predictions(probabilities, labels)
    truth: np.ndarray = np.maximum(array[:, np.arange(len(targets)), targets], LOWEST)
    return truth
