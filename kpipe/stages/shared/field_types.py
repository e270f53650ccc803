"""Types of fields that several stages have."""

from __future__ import annotations

from typing import Annotated, Literal

from kpipe.core.fields import Between

__all__ = [
    "LearningRate",
    "LossWeight",
    "NonNegativeInt",
    "OpenUnitInterval",
    "Optimizer",
    "PositiveInt",
    "Schedule",
    "UnitInterval",
]

PositiveInt = Annotated[int, Between(1)]
NonNegativeInt = Annotated[int, Between(0)]
UnitInterval = Annotated[float, Between(0, 1)]
OpenUnitInterval = Annotated[float, Between(0, 1, strict=True)]
LearningRate = Annotated[float, Between(0, strict=True)]
LossWeight = Annotated[float, Between(0)]
Optimizer = Literal["sgd", "adam", "adamw", "rmsprop", "adadelta", "swats"]
Schedule = Literal["constant", "cosine", "exponential", "one-cycle", "plateau", "step"]
