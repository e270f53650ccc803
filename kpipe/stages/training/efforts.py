"""How much time a training may take: named sets of defaults.

    effort := "quick" | "standard" (the defaults of `Recipe`) | "best"
    epochs := n | (n, steps): n, or for few photos as many as make up the steps, up to 4 n

docs/evidence.md, "A recipe by evidence", has the trials that chose the defaults, on validation
cross-entropy. "best" has no finished trials of its own yet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

__all__ = ["EFFORTS", "MOST_TIMES", "Effort", "epochs_of", "least_epochs"]

Epochs = int | tuple[int, int]

MOST_TIMES = 4

Effort = Literal["quick", "standard", "best"]

EFFORTS: Mapping[str, Mapping[str, Any]] = {
    "quick": {"epochs": (6, 200)},
    "standard": {},
    "best": {"epochs": (60, 1920)},
}


def least_epochs(epochs: Epochs) -> int:
    """Return the number of epochs of many photos."""
    return epochs if isinstance(epochs, int) else epochs[0]


def epochs_of(epochs: Epochs, steps_per_epoch: int) -> int:
    """Return the number of epochs that a recipe declares for its photos.

    Args:
        epochs: as declared.
        steps_per_epoch: training steps that show all photos once.
    """
    if isinstance(epochs, int):
        return epochs
    least, steps = epochs
    return min(MOST_TIMES * least, max(least, math.ceil(steps / steps_per_epoch)))
