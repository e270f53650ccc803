"""The number of photos of each class, from checked labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from kpipe.errors import DataError

__all__ = ["count_classes"]


def count_classes(
    labels: ArrayLike, classes: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return checked class indices, (photos,) integers, and their counts, (classes,).

    Raises:
        DataError: if labels are not class indices, or a class (of those named, or of 0 to the
            highest label) has no label.
    """
    try:
        found = np.asarray(labels)
    except ValueError:  # rows of different lengths
        found = np.asarray(labels, object)
    if found.ndim != 1 or not found.size or not np.issubdtype(found.dtype, np.integer):
        raise DataError(
            "labels must be class indices",
            expected="(photos,) integers, at least one",
            received=f"shape {found.shape}, {found.dtype}",
        )
    number = int(found.max()) + 1 if classes is None else len(classes)
    invalid = np.unique(found[(found < 0) | (found >= number)])
    if invalid.size:
        raise DataError(
            f"labels {invalid.tolist()} are not class indices",
            expected=f"0 to {number - 1}" if number > 0 else "0 or more",
        )
    # A label may be huge; among more indices than labels, some are absent.
    indices = np.arange(number if classes else min(number, len(found) + 1))
    absent = np.setdiff1d(indices, found).tolist()
    if absent:
        names = [repr(classes[index]) if classes else str(index) for index in absent]
        raise DataError(
            f"no label of class {', '.join(names)}",
            expected="at least one photo of each class, to weight or sample it",
            fix="add photos of it, or leave the class out",
        )
    return found, np.bincount(found)
