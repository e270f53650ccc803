"""How TFMOT trains, and the numbers that are asked of it."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import tf_keras

from kpipe.errors import SparsityError, nearest

__all__ = ["TrainingSettings", "check_training", "is_count", "optimizer", "refuse_wrong"]

# By class, since tf_keras.optimizers.get("adam") gives the legacy one, which cannot be built ahead.
_OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "adadelta": tf_keras.optimizers.Adadelta,
    "adam": tf_keras.optimizers.Adam,
    "adamw": tf_keras.optimizers.AdamW,
    "rmsprop": tf_keras.optimizers.RMSprop,
    "sgd": partial(tf_keras.optimizers.SGD, momentum=0.9),
}

_SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class TrainingSettings:
    """How TFMOT trains.

    Attributes:
        optimizer: "adam", "adamw", "sgd" (momentum 0.9), "rmsprop" or "adadelta".
        learning_rate: at the beginning.
        learning_rate_schedule: "constant", or "cosine" for a decay to zero along a cosine.
        class_weight: class index -> factor of its examples in the loss, 1 for those not named.
        seed: of the dropout draws.
        on_epoch: called with (epoch from 0, {"loss", "accuracy"}) after each epoch's checkpoint.
    """

    optimizer: str = "adam"
    learning_rate: float = 1e-3
    learning_rate_schedule: str = "constant"
    class_weight: Mapping[int, float] | None = None
    seed: int = 0
    on_epoch: Callable[[int, dict[str, float]], None] | None = field(
        default=None, compare=False, repr=False
    )


def optimizer(settings: TrainingSettings, steps: int) -> Any:
    """One of tf_keras, for so many steps."""
    for value, known in (
        (settings.optimizer, _OPTIMIZERS),
        (settings.learning_rate_schedule, _SCHEDULES),
    ):
        if not isinstance(value, str) or value not in known:
            word = "optimizer" if known is _OPTIMIZERS else "learning_rate_schedule"
            raise SparsityError(f"unknown {word} {value!r}", fix=nearest(str(value), known))
    rate: Any = settings.learning_rate
    if settings.learning_rate_schedule == "cosine":
        rate = tf_keras.optimizers.schedules.CosineDecay(rate, steps)
    return _OPTIMIZERS[settings.optimizer](learning_rate=rate)


def check_training(epochs: int, steps_per_epoch: int, settings: TrainingSettings) -> None:
    """Refuse numbers with which nothing can be trained, and settings that are none."""
    if not isinstance(settings, TrainingSettings):
        raise SparsityError(
            "how to train is said by TrainingSettings",
            expected="kpipe.sparsity.TrainingSettings(learning_rate=1e-4)",
            received=repr(settings),
        )
    refuse_wrong(
        {
            "epochs": (epochs, is_count),
            "steps_per_epoch": (steps_per_epoch, is_count),
            "learning_rate": (settings.learning_rate, lambda rate: 0 < rate < math.inf),
        },
        "numbers above 0, epochs and steps whole",
    )


def is_count(number: Any) -> bool:
    """Whether a whole number is 1 or more; a TypeError for what is none, as for `refuse_wrong`."""
    return operator.index(number) >= 1


def refuse_wrong(values: Mapping[str, tuple[Any, Callable[[Any], bool]]], expected: str) -> None:
    """An error that names every value that is not right.

    Args:
        values: {name: (value, what says whether it is right, or fails at a value of another kind)}.
        expected: what all of them should be.
    """

    def wrong(value: Any, right: Callable[[Any], bool]) -> bool:
        try:
            return not right(value)
        except (TypeError, ValueError):
            return True

    named = [f"{name}={value!r}" for name, (value, right) in values.items() if wrong(value, right)]
    if named:
        raise SparsityError(f"this cannot be done with {', '.join(named)}", expected=expected)
