"""The errors of a model with many classes, as tables.

pairs    {"true", "predicted", "photos", "fraction" of the true class}, the most photos first
classes  {"name", "photos", "recall", "predicted": the most frequent error}, the lowest recall first
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kpipe.printable import shortened

__all__ = ["summarize_confusion"]

# Characters of a class name.
_NAME = 60


def summarize_confusion(
    confusion: Sequence[Sequence[int]], classes: Sequence[str], most: int = 50
) -> dict[str, Any]:
    """Return the most confused pairs of classes, and the classes with the lowest recall.

    Args:
        confusion: (classes, classes) photos, true by predicted class.
        classes: the names.
        most: rows of each table.

    Returns:
        "pairs" and "classes", as above, and the number of all "errors" and "confused" pairs.
    """
    counts = np.asarray(confusion)
    names = [shortened(name, _NAME) for name in classes]
    photos, correct = counts.sum(axis=1), counts.diagonal()
    errors = counts - np.diag(correct)
    fractions = errors / np.maximum(1, photos)[:, None]
    true, predicted = np.nonzero(errors)
    pairs = np.lexsort((predicted, true, -fractions[true, predicted], -errors[true, predicted]))
    recall = correct / np.maximum(1, photos)
    tested = np.flatnonzero(photos)
    worst = tested[np.argsort(recall[tested], kind="stable")]
    return {
        "errors": int(errors.sum()),
        "confused": len(true),
        "pairs": [
            {
                "true": names[i],
                "predicted": names[j],
                "photos": int(errors[i, j]),
                "fraction": float(fractions[i, j]),
            }
            for i, j in zip(true[pairs[:most]], predicted[pairs[:most]], strict=True)
        ],
        "classes": [
            {
                "name": names[i],
                "photos": int(photos[i]),
                "recall": float(recall[i]),
                "predicted": names[errors[i].argmax()] if errors[i].any() else "",
            }
            for i in worst[:most]
        ],
    }
