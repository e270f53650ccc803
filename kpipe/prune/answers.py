"""The numbers that functions of one's own give: scores, losses, milliseconds."""

from __future__ import annotations

import math
from typing import Any

from kpipe.errors import PruneError

__all__ = ["finite"]


def finite(answer: Any, what: str, expected: str) -> float:
    """A number from such a function.

    Raises:
        PruneError: it is none, or not finite; `what` says which function gave it.
    """
    try:
        value = float(answer)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise PruneError(what, expected=expected, received=repr(answer))
    return value
