"""Over-sampling: repeat photos of small classes."""

from __future__ import annotations

from kpipe.data.balancing.resampling import Rows, resample
from kpipe.data.balancing.sampling import Sampling
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["oversample"]


@names_wrong_kinds
def oversample(photos: Rows, ratio: float = 1.0, seed: int = 0) -> Rows:
    """Repeat photos until each class has at least `ratio` times the photos of the largest class.

    Args:
        photos: labels, (photos,) integers; or a split manifest, to be decoded afterwards.
        ratio: in (0, 1].
        seed: seed of the draw, used where a class is not repeated a whole number of times.

    Returns:
        Positions in the labels, int64 (n,), ascending; or a manifest with repeated train rows,
        listed in its problems.

    Raises:
        DataError: if labels are not class indices, a class has no photo, there is no train split,
            or the ratio is out of range.

    Example:
        >>> import numpy as np
        >>> from kpipe.data import oversample
        >>> oversample(np.array([0, 0, 0, 1])).tolist()
        [0, 1, 2, 3, 3, 3]
    """
    return resample(photos, Sampling("oversample", ratio), seed)
