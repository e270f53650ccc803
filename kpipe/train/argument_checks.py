"""The check that a number is in its range, for all of `kpipe.train`."""

from __future__ import annotations

import math

from kpipe.errors import TrainingError

__all__ = ["refuse_out_of_range"]


def refuse_out_of_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Raise a TrainingError unless `low <= value < high`; NaN and infinity are out of range."""
    if not low <= value < high:
        expected = f"[{low:g}, {high:g})" if high < math.inf else f"{low:g} or more"
        raise TrainingError(f"{name} is out of range", expected=expected, received=repr(value))
