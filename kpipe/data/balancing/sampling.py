"""Which photos an epoch shows, and how often.

    targets := {class index: photos of the class in an epoch}

    method              target of a class of n photos, the largest of L, the smallest of S
    oversample          max(n, ratio * L)    repeats photos, each augmented differently
    undersample         min(n, S / ratio)    other photos in each epoch, until all were shown
    augment_minority    max(n, ratio * L)    repeats photos and augments only the repeats

`Sampling.draw` meets the targets exactly in every epoch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from kpipe.data.balancing.class_counts import count_classes
from kpipe.errors import DataError, nearest
from kpipe.wrong_kinds import names_wrong_kinds, names_wrong_kinds_of_fields

__all__ = ["Method", "Sampling", "repeat_positions"]

Method = Literal["oversample", "undersample", "augment_minority"]


@names_wrong_kinds_of_fields
@dataclass(frozen=True)
class Sampling:
    """Which photos an epoch shows, and how often.

    Args:
        method: "oversample", "undersample" or "augment_minority".
        ratio: the size of the smallest class relative to the largest, at least, in (0, 1]; 1 makes
            all classes equal.

    Raises:
        DataError: if the method is unknown or the ratio is out of range.

    Example:
        >>> from kpipe.data import Sampling
        >>> sampling = Sampling("oversample", ratio=0.5)
        >>> sampling.targets([0, 0, 0, 0, 1])
        {0: 4, 1: 2}
        >>> positions, copies = sampling.draw([0, 0, 0, 0, 1], seed=0, epoch=0)
        >>> positions.tolist(), copies.tolist()
        ([0, 1, 2, 3, 4, 4], [0, 0, 0, 0, 0, 1])
    """

    method: Method
    ratio: float = 1.0

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise DataError(
                f"unknown sampling {self.method!r}", fix=nearest(self.method, get_args(Method))
            )
        if not 0 < self.ratio <= 1:
            raise DataError(f"ratio={self.ratio!r} is out of range", expected="0 < ratio <= 1")

    def targets(self, labels: ArrayLike) -> dict[int, int]:
        """Return how many photos of each class an epoch shows: {class index: photos}.

        Args:
            labels: (photos,) integers, class indices, with no class missing.
        """
        _, counts = count_classes(labels)
        # A decimal fraction: 0.55 of 100 is 55, which binary arithmetic would round up to 56.
        ratio = Fraction(str(self.ratio))
        if self.method == "undersample":
            most = math.floor(int(counts.min()) / ratio)
            return {index: min(count, most) for index, count in enumerate(counts.tolist())}
        least = math.ceil(int(counts.max()) * ratio)
        return {index: max(count, least) for index, count in enumerate(counts.tolist())}

    @names_wrong_kinds
    def draw(self, labels: ArrayLike, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw the photos of one epoch; a pure function of its arguments.

        With n photos and a target of t, each photo of a class appears t // n times, and t % n
        photos appear once more. These are drawn without replacement across epochs: no photo is
        drawn again before all photos of its class were drawn.

        Args:
            labels: (photos,) integers, class indices, with no class missing.
            seed: seed of the draws.
            epoch: number of the epoch, from 0.

        Returns:
            Positions in `labels`, ascending, and for each its copy number in this epoch (0 for the
            first): both int64 (n,), with the same n in every epoch.
        """
        found, counts = count_classes(labels)
        times = np.zeros(len(found), np.int64)
        for index, target in self.targets(found).items():
            places = np.flatnonzero(found == index)
            every, further = divmod(target, int(counts[index]))
            times[places] = every
            if further:
                cycle, turn = divmod(epoch, math.ceil(len(places) / further))
                # NumPy's generator refuses negative seeds.
                generator = np.random.default_rng((seed % 2**64, index, cycle))
                order = generator.permutation(places)
                # If the last turn has too few photos, it continues with the first of the cycle.
                chosen = np.arange(turn * further, (turn + 1) * further)
                times[order.take(chosen, mode="wrap")] += 1
        return repeat_positions(times)

    def augments(self, copies: np.ndarray) -> np.ndarray:
        """Return which photos to augment by their copy numbers from `draw`: (n,) bool."""
        return copies >= (1 if self.method == "augment_minority" else 0)


def repeat_positions(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Repeat positions, and number the copies: `[2, 0, 1]` gives `[0, 0, 2]` and `[0, 1, 0]`."""
    positions = np.repeat(np.arange(len(times)), times)
    firsts = np.repeat(np.cumsum(times) - times, times)
    return positions, np.arange(len(positions)) - firsts
