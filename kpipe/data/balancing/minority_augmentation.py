"""Minority augmentation: repeat photos of small classes, and augment only the repeats."""

from __future__ import annotations

from kpipe.data.balancing.resampling import Rows, resample
from kpipe.data.balancing.sampling import Sampling
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["augment_minority"]


@names_wrong_kinds
def augment_minority(photos: Rows, ratio: float = 1.0, seed: int = 0) -> Rows:
    """Repeat photos of small classes as `oversample` does, to augment only the repeats.

    Args:
        photos: labels, (photos,) integers; or a split manifest, to be decoded afterwards.
        ratio: in (0, 1].
        seed: seed of the draw, used where a class is not repeated a whole number of times.

    Returns:
        Positions in the labels, int64 (n,), ascending: the first of equal positions is the original
        photo, the others are to be augmented. Or a new manifest, whose rows to augment are
        `table.duplicated("path")`; note that `dataset` augments every row of a manifest.

    Raises:
        DataError: as `oversample`.

    Example:
        >>> import numpy as np
        >>> from kpipe.data import augment_minority
        >>> augment_minority(np.array([0, 0, 1])).tolist()
        [0, 1, 2, 2]
    """
    return resample(photos, Sampling("augment_minority", ratio), seed)
