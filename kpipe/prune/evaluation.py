"""The functions by which users evaluate a model, and a check of what they return."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras

from kpipe.errors import PruneError

__all__ = ["Evaluate", "Loss", "finite"]

Evaluate = Callable[[keras.Model], float]  # a score, higher is better
Loss = Callable[[keras.Model], float]


def finite(value: Any, function: str) -> float:
    """Return the number that a user's function returned.

    Raises:
        PruneError: it is not a finite number.
    """
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
