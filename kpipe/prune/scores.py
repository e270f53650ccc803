"""The numbers that functions of one's own give: scores and losses."""

from __future__ import annotations

import math
from typing import Any

from kpipe.errors import PruneError

__all__ = ["loss_of", "score_of"]


def score_of(answer: Any) -> float:
    """What `evaluate` gave.

    Raises:
        PruneError: it is no number, or not finite.
    """
    return _finite(answer, "evaluate gave no score", "a finite number, more is better")


def loss_of(answer: Any) -> float:
    """What `loss` gave.

    Raises:
        PruneError: it is no number, or not finite.
    """
    return _finite(answer, "loss gave no number", "a finite one, less is better")


def _finite(answer: Any, what: str, expected: str) -> float:
    try:
        value = float(answer)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise PruneError(what, expected=expected, received=repr(answer))
    return value
