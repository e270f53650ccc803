"""How TFMOT trains: the optimizer, the length of the training, and its folder."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import tf_keras

from kpipe.errors import SparsityError, nearest
from kpipe.wrong_kinds import names_wrong_kinds_of_fields

__all__ = ["TrainingJob", "TrainingSettings", "refuse_invalid", "refuse_unknown"]

# By class, since tf_keras.optimizers.get("adam") gives the legacy one, which cannot be built ahead.
_OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "adadelta": tf_keras.optimizers.Adadelta,
    "adam": tf_keras.optimizers.Adam,
    "adamw": tf_keras.optimizers.AdamW,
    "rmsprop": tf_keras.optimizers.RMSprop,
    "sgd": partial(tf_keras.optimizers.SGD, momentum=0.9),
}
_SCHEDULES = ("constant", "cosine")


@names_wrong_kinds_of_fields
@dataclass(frozen=True)
class TrainingSettings:
    """How `prune_magnitude`, `cluster_weights` and `train_quantized` train.

    Args:
        optimizer: "adam", "adamw", "sgd" (momentum 0.9), "rmsprop" or "adadelta".
        learning_rate: initial learning rate, above 0.
        learning_rate_schedule: "constant", or "cosine" for a decay to zero along a cosine.
        class_weight: class index -> factor of its examples in the loss; 1 for classes left out.
        seed: of the dropout masks.
        on_epoch: called after each epoch's checkpoint with the epoch, from 0, and its metrics
            "loss" and "accuracy".

    Example:
        >>> from kpipe.sparsity import TrainingSettings
        >>> TrainingSettings(learning_rate=1e-4, learning_rate_schedule="cosine").optimizer
        'adam'
    """

    optimizer: str = "adam"
    learning_rate: float = 1e-3
    learning_rate_schedule: str = "constant"
    class_weight: Mapping[int, float] | None = None
    seed: int = 0
    on_epoch: Callable[[int, dict[str, float]], None] | None = field(
        default=None, compare=False, repr=False
    )


@dataclass(frozen=True)
class TrainingJob:
    """The arguments that all training functions share, checked.

    Args:
        epochs: number of epochs, 1 or more.
        steps_per_epoch: batches in each epoch, 1 or more.
        settings: how to train.
        folder: for checkpoints; None for no checkpoints.

    Raises:
        SparsityError: for values out of range, all of them named, or an unknown name.
    """

    epochs: int
    steps_per_epoch: int
    settings: TrainingSettings
    folder: str | os.PathLike[str] | None

    def __post_init__(self) -> None:
        settings = self.settings
        refuse_invalid(
            {
                f"epochs={self.epochs!r}": self.epochs >= 1,
                f"steps_per_epoch={self.steps_per_epoch!r}": self.steps_per_epoch >= 1,
                f"learning_rate={settings.learning_rate!r}": 0 < settings.learning_rate < math.inf,
            },
            expected="epochs and steps_per_epoch of 1 or more, a finite learning_rate above 0",
        )
        refuse_unknown("optimizer", settings.optimizer, _OPTIMIZERS)
        refuse_unknown("learning_rate_schedule", settings.learning_rate_schedule, _SCHEDULES)

    @property
    def steps(self) -> int:
        """Training steps in all epochs."""
        return self.epochs * self.steps_per_epoch

    def optimizer(self) -> Any:
        """Return a new tf_keras optimizer."""
        learning_rate: Any = self.settings.learning_rate
        if self.settings.learning_rate_schedule == "cosine":
            learning_rate = tf_keras.optimizers.schedules.CosineDecay(learning_rate, self.steps)
        return _OPTIMIZERS[self.settings.optimizer](learning_rate=learning_rate)


def refuse_invalid(valid: Mapping[str, bool], expected: str) -> None:
    """Raise an error that names every argument that is not valid.

    Args:
        valid: "name=value" -> whether the value is valid.
        expected: the valid values of all arguments.
    """
    invalid = [argument for argument, is_valid in valid.items() if not is_valid]
    if invalid:
        raise SparsityError(f"invalid {', '.join(invalid)}", expected=expected)


def refuse_unknown(argument: str, name: str, known: Iterable[str]) -> None:
    """Raise an error for a name that is not known."""
    if name not in known:
        raise SparsityError(f"unknown {argument} {name!r}", fix=nearest(name, known))
