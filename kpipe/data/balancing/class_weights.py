"""Weights of classes in the loss.

class_weight    {class index: factor in the loss}
class_shares    {class index: fraction of the loss}: photos in an epoch x weight, normalized
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import xlogy
from sklearn.utils.class_weight import compute_class_weight

from kpipe.class_indices import complete_class_weights
from kpipe.data.balancing.class_counts import count_classes
from kpipe.data.balancing.sampling import Sampling
from kpipe.errors import DataError, nearest
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["Weighting", "class_shares", "class_weight"]

Weighting = Literal["balanced", "effective"]


@names_wrong_kinds
def class_weight(
    labels: ArrayLike,
    classes: Sequence[str] | None = None,
    method: Weighting = "balanced",
    beta: float = 0.999,
) -> dict[int, float]:
    """Return class weights for `model.fit(class_weight=)` that give rare classes a larger loss.

    "balanced" weights a class of n photos by 1 / n, so that all classes count equally (King and
    Zeng, "Logistic Regression in Rare Events Data", 2001). "effective" weights it by
    (1 - beta) / (1 - beta**n), since photos of one class resemble each other (Cui et al.,
    "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019, equation 2). The mean
    weight over the labels is 1, so the scale of the loss does not change.

    Args:
        labels: (photos,) integers, class indices.
        classes: the class names that labels index; by default, the classes are 0 to the highest
            label.
        method: "balanced" or "effective".
        beta: for "effective", in [0, 1): 0 weights all classes equally; "balanced" is the limit
            at 1.

    Returns:
        {class index: weight}.

    Raises:
        DataError: if labels are not class indices, a class has no label, the method is unknown, or
            beta is out of range.

    Example:
        >>> from kpipe.data import class_weight
        >>> class_weight([0, 0, 0, 1])
        {0: 0.6667, 1: 2.0}
    """
    found, counts = count_classes(labels, classes)
    if method == "balanced":
        weights = compute_class_weight("balanced", classes=np.arange(len(counts)), y=found)
    elif method == "effective":
        if not 0 <= beta < 1:
            raise DataError(f"beta={beta!r} is out of range", expected="0 <= beta < 1")
        # beta**n loses its digits near 1; n * log(beta) and expm1 keep them.
        weights = (1 - beta) / -np.expm1(xlogy(counts, beta))
        weights *= len(found) / (weights @ counts)
    else:
        raise DataError(f"unknown weighting {method!r}", fix=nearest(method, get_args(Weighting)))
    return dict(enumerate(weights.tolist()))


@names_wrong_kinds
def class_shares(
    labels: ArrayLike,
    sampling: Sampling | None = None,
    class_weight: Mapping[int, float] | None = None,
) -> dict[int, float]:
    """Return the fraction of the loss that each class has: photos in an epoch times weight.

    Args:
        labels: (photos,) integers, class indices.
        sampling: which photos an epoch shows; by default, each photo once.
        class_weight: {class index: weight}; 1 for classes left out.

    Returns:
        {class index: fraction}; the fractions sum to 1.

    Raises:
        DataError: if labels are not class indices, a class has no label, or a weight is negative,
            not finite or of an unknown class.

    Example:
        >>> from kpipe.data import Sampling, class_shares
        >>> class_shares([0, 0, 0, 1])
        {0: 0.75, 1: 0.25}
        >>> class_shares([0, 0, 0, 1], Sampling("oversample"))
        {0: 0.5, 1: 0.5}
    """
    _, counts = count_classes(labels)
    weights = complete_class_weights(class_weight, len(counts), DataError)
    shown = sampling.targets(labels) if sampling else dict(enumerate(counts.tolist()))
    masses = {i: count * (weights[i] if weights else 1.0) for i, count in shown.items()}
    if not any(masses.values()):
        raise DataError("all class weights are 0", expected="a weight above 0")
    return {index: mass / sum(masses.values()) for index, mass in masses.items()}
