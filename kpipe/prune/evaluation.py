"""The functions by which users evaluate a model, and a check of what they return."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kpipe.errors import PruneError
from kpipe.paired_loss import PairedLoss

__all__ = ["Evaluate", "Loss", "finite", "paired_loss"]

# A score, higher is better; or whether each image is predicted correctly, bool (images,).
Evaluate = Callable[[keras.Model], float | np.ndarray]
Loss = Callable[[keras.Model], float]


def finite(value: Any, function: str) -> float:
    """Return the number that a user's function returned; for booleans, their mean.

    Raises:
        PruneError: it is not a finite number.
    """
    if _are_outcomes(value):
        value = value.mean()
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise PruneError(
            f"{function} did not return a finite number",
            expected="a single number, such as an accuracy or a loss",
            received=repr(value),
        )
    return number


def paired_loss(reference: Callable[[], Any], value: Any) -> PairedLoss | None:
    """Return the loss of a result of an `Evaluate`; None if it is a score.

    Args:
        reference: returns the result for the original model; called only if it is needed.
        value: the result.

    Raises:
        PruneError: the results are not of the same images.
    """
    if not _are_outcomes(value):
        return None
    expected = reference()
    if not _are_outcomes(expected) or expected.shape != value.shape:
        raise PruneError(
            "evaluate returned results of other images than for the original model",
            expected=f"bool {np.shape(expected)}",
            received=f"bool {value.shape}",
        )
    return PairedLoss.between(expected, value)


def _are_outcomes(value: Any) -> bool:
    return (
        isinstance(value, np.ndarray) and value.dtype == bool and value.ndim == 1 and value.size > 0
    )
