"""Uneven classes.

class_weight: {class index: photos / (classes * photos of the class)}
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.class_weight import compute_class_weight

from kpipe.errors import DataError

__all__ = ["class_weight"]


def class_weight(labels: ArrayLike, classes: Sequence[str] | None = None) -> dict[int, float]:
    """Weights under which every class counts the same, for `model.fit(class_weight=)`.

    scikit-learn's "balanced" heuristic (King and Zeng, "Logistic Regression in Rare Events Data",
    2001). The mean weight over the labels is 1, so the size of the loss is unchanged.

    Args:
        labels: (photos,) integers, class indices.
        classes: the class names, a label being an index into them; without it, the classes are
            0 to the highest label.

    Returns:
        {class index: weight}.

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
    indices = np.arange(found.max() + 1 if classes is None else len(classes))
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
            expected="each class at least once: the weight of an absent class is infinite",
            fix="add photos of it, or leave the class out",
        )
    weights = compute_class_weight("balanced", classes=indices, y=found)
    return {int(index): float(weight) for index, weight in zip(indices, weights, strict=True)}
