"""Numbers that a caller gives, refused in the caller's words."""

from __future__ import annotations

import math
import operator
from typing import Any

from kpipe.errors import TrainingError

__all__ = ["refuse_fraction", "refuse_number"]


def refuse_fraction(name: str, value: Any, low: int) -> None:
    """Raises a TrainingError for what is no whole number of at least `low`."""
    try:
        whole = not isinstance(value, bool) and operator.index(value) >= low
    except TypeError:
        whole = False
    if not whole:
        raise TrainingError(
            f"{name} is a whole number", expected=f"{low} or more", received=repr(value)
        )


def refuse_number(name: str, value: Any, low: float, high: float = math.inf) -> None:
    """Raises a TrainingError for what is no finite number in [low, high)."""
    try:
        fine = not isinstance(value, bool | str) and low <= float(value) < high
    except (TypeError, ValueError):
        fine = False
    if not fine:
        expected = f"[{low:g}, {high:g})" if high < math.inf else f"a number of {low:g} or more"
        raise TrainingError(f"{name} is out of range", expected=expected, received=repr(value))
