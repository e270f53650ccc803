"""Under-sampling: leave out photos of large classes."""

from __future__ import annotations

from kpipe.data.balancing.resampling import Rows, resample
from kpipe.data.balancing.sampling import Sampling
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["undersample"]


@names_wrong_kinds
def undersample(photos: Rows, ratio: float = 1.0, seed: int = 0) -> Rows:
    """Leave out photos until each class has at most 1 / `ratio` times those of the smallest class.

    Args:
        photos: labels, (photos,) integers; or a split manifest, to be decoded afterwards.
        ratio: in (0, 1].
        seed: seed of the draw.

    Returns:
        Positions in the labels, int64 (n,), ascending; or a manifest with fewer train rows, the
        others listed in its problems.

    Raises:
        DataError: as `oversample`.

    Example:
        >>> from kpipe.data import from_folder, split, undersample
        >>> manifest = split(from_folder("photos"))
        >>> smaller = undersample(manifest)
        >>> smaller.counts()["train"].nunique()
        1
    """
    return resample(photos, Sampling("undersample", ratio), seed)
