"""How much time a training may take: named sets of defaults.

    effort := "quick" | "standard" (the defaults of `Recipe`) | "best"

docs/evidence.md, "A recipe by evidence", has the trials that chose the defaults, on validation
cross-entropy. "quick" and "best" have no trials of their own yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

__all__ = ["EFFORTS", "Effort"]

Effort = Literal["quick", "standard", "best"]

EFFORTS: Mapping[str, Mapping[str, Any]] = {
    "quick": {"retrain_last": 60, "epochs": 6},
    "standard": {},
    "best": {"epochs": 60},
}
