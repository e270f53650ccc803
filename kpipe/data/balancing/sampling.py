"""Uneven classes made even: by weights in the loss, or by which photos an epoch shows.

    class weight    {class index: factor in the loss}
    targets         {class index: photos of the class in an epoch}

    method              a class of n photos, the largest of L, the smallest of S
    oversample          max(n, ratio * L)    repeats photos, each repeat augmented anew
    undersample         min(n, S / ratio)    other photos in each epoch, until all had their turn
    augment_minority    max(n, ratio * L)    repeats photos; the repeats alone are augmented

Every method comes down to targets, and `Sampling.draw` meets them exactly in every epoch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import xlogy
from sklearn.utils.class_weight import compute_class_weight

from kpipe.errors import DataError, nearest

__all__ = ["Sampling", "class_shares", "class_weight", "counted", "spread"]

Method = Literal["oversample", "undersample", "augment_minority"]
Weighting = Literal["balanced", "effective"]


def class_weight(
    labels: ArrayLike,
    classes: Sequence[str] | None = None,
    method: Weighting = "balanced",
    beta: float = 0.999,
) -> dict[int, float]:
    """Weights that let a rare class count more, for `model.fit(class_weight=)`.

    "balanced" weighs a class of n photos by 1 / n, so that every class counts the same (King and
    Zeng, "Logistic Regression in Rare Events Data", 2001). "effective" weighs it by
    (1 - beta) / (1 - beta**n): photos of one class resemble each other, so that n of them are worth
    fewer (Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019,
    equation 2). Either way the mean weight over the labels is 1, which leaves the size of the loss
    as it was.

    Args:
        labels: (photos,) integers, class indices.
        classes: the class names, a label being an index into them; without it, the classes are
            0 to the highest label.
        method: "balanced" or "effective".
        beta: of "effective", in [0, 1): 0 weighs all classes the same, near 1 it is "balanced".

    Returns:
        {class index: weight}.

    Raises:
        DataError: labels that are not class indices, a class without a label, an unknown method,
            or a beta out of its range.

    >>> from kpipe.data import class_weight
    >>> class_weight([0, 0, 0, 1])
    {0: 0.6667, 1: 2.0}
    """
    found, counts = counted(labels, classes)
    if method == "balanced":
        weights = compute_class_weight("balanced", classes=np.arange(len(counts)), y=found)
    elif method == "effective":
        if not 0 <= beta < 1:
            raise DataError(f"beta={beta!r} is out of its range", expected="0 <= beta < 1")
        # beta ** n loses its digits near 1; n * log(beta) and expm1 keep them.
        weights = (1 - beta) / -np.expm1(xlogy(counts, beta))
        weights *= len(found) / (weights @ counts)
    else:
        raise DataError(
            f"no weighting is called {method!r}", fix=nearest(str(method), get_args(Weighting))
        )
    return dict(enumerate(weights.tolist()))


@dataclass(frozen=True)
class Sampling:
    """Which photos an epoch shows, and how often.

    Args:
        method: "oversample", "undersample" or "augment_minority".
        ratio: of the smallest class to the largest, at least, in (0, 1]; 1 makes all even.

    Raises:
        DataError: an unknown method, or a ratio out of its range.
    """

    method: Method
    ratio: float = 1.0

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise DataError(
                f"no sampling is called {self.method!r}",
                fix=nearest(str(self.method), get_args(Method)),
            )
        number = isinstance(self.ratio, int | float) and not isinstance(self.ratio, bool)
        if not number or not 0 < self.ratio <= 1:
            raise DataError(
                f"ratio={self.ratio!r} is out of its range", expected="a number, 0 < ratio <= 1"
            )

    def targets(self, labels: ArrayLike) -> dict[int, int]:
        """How many photos of each class an epoch shows: {class index: photos}.

        Args:
            labels: (photos,) integers, class indices, each from 0 to the highest at least once.
        """
        _, counts = counted(labels)
        # As it is written: 0.55 of 100 is 55, which binary fractions round up to 56.
        ratio = Fraction(str(self.ratio))
        if self.method == "undersample":
            most = math.floor(int(counts.min()) / ratio)
            return {index: min(count, most) for index, count in enumerate(counts.tolist())}
        least = math.ceil(int(counts.max()) * ratio)
        return {index: max(count, least) for index, count in enumerate(counts.tolist())}

    def draw(self, labels: ArrayLike, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The photos of one epoch; a pure function of its arguments.

        A photo of a class of n that has a target of t comes t // n times, and t % n photos come
        once more. These are drawn without return over the epochs: none has a second turn before
        all of its class had one.

        Args:
            labels: (photos,) integers, class indices, each from 0 to the highest at least once.
            seed: of the draws.
            epoch: from 0.

        Returns:
            positions in `labels`, ascending, and for each how often it was there before in this
            epoch (0 for the first time): both int64 (n,), n the same in every epoch.
        """
        found, counts = counted(labels)
        times = np.zeros(len(found), np.int64)
        for index, target in self.targets(found).items():
            places = np.flatnonzero(found == index)
            every, further = divmod(target, int(counts[index]))
            times[places] = every
            if further:
                cycle, turn = divmod(epoch, math.ceil(len(places) / further))
                # Seeds may be negative, which NumPy's generator refuses.
                generator = np.random.default_rng((seed % 2**64, index, cycle))
                order = generator.permutation(places)
                # The last turn of a cycle is filled up from its first.
                chosen = np.arange(turn * further, (turn + 1) * further)
                times[order.take(chosen, mode="wrap")] += 1
        return spread(times)

    def augments(self, copies: np.ndarray) -> np.ndarray:
        """Which of the drawn photos are to be augmented, where there is an augmenter.

        Args:
            copies: (n,) as `draw` returned them.

        Returns:
            (n,) bool.
        """
        return copies >= (1 if self.method == "augment_minority" else 0)


def class_shares(
    labels: ArrayLike,
    sampling: Sampling | None = None,
    class_weight: Mapping[int, float] | None = None,
) -> dict[int, float]:
    """The share that each class has in the loss: photos in an epoch, times weight.

    Args:
        labels: (photos,) integers, class indices.
        sampling: which photos an epoch shows; without it, all of them once.
        class_weight: {class index: weight}; without it, all count the same.

    Returns:
        {class index: share}, of sum 1.
    """
    _, counts = counted(labels)
    seen = sampling.targets(labels) if sampling else dict(enumerate(counts.tolist()))
    masses = {i: count * (class_weight[i] if class_weight else 1.0) for i, count in seen.items()}
    return {index: mass / sum(masses.values()) for index, mass in masses.items()}


def counted(
    labels: ArrayLike, classes: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The labels, checked, and how many there are of each class.

    Args:
        labels: (photos,) integers, class indices.
        classes: the class names; without it, the classes are 0 to the highest label.

    Returns:
        labels (photos,) and counts (classes,).

    Raises:
        DataError: labels that are not class indices, or a class without a label.
    """
    found = np.asarray(labels)
    if found.ndim != 1 or not found.size or not np.issubdtype(found.dtype, np.integer):
        raise DataError(
            "labels must be class indices",
            expected="(photos,) integers, at least one",
            received=f"shape {found.shape}, {found.dtype}",
        )
    indices = np.arange(int(found.max()) + 1 if classes is None else len(classes))
    strange = np.setdiff1d(found, indices)
    if strange.size:
        raise DataError(
            f"labels {strange.tolist()} are no class index",
            expected=f"0 to {len(indices) - 1}",
        )
    absent = np.setdiff1d(indices, found).tolist()
    if absent:
        names = [repr(classes[index]) if classes else str(index) for index in absent]
        raise DataError(
            f"no label of class {', '.join(names)}",
            expected="each class at least once: an absent one can neither be weighed nor drawn",
            fix="add photos of it, or leave the class out",
        )
    return found, np.bincount(found)


def spread(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each position as often as told: positions, ascending, and their numbers among equal ones.

    Args:
        times: (photos,) int64, how often each position comes.

    Returns:
        (n,) int64 each. `[2, 0, 1]` gives `[0, 0, 2]` and `[0, 1, 0]`.
    """
    positions = np.repeat(np.arange(len(times)), times)
    firsts = np.repeat(np.cumsum(times) - times, times)
    return positions, np.arange(len(positions)) - firsts
