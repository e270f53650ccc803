"""How to train: what of a training is declared before it begins.

plan := epochs, first optimizer, its schedule, [moment, second optimizer], what the loss counts,
        what is averaged, when to stop early
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from kpipe.errors import TrainingError
from kpipe.keras_internals import has_decay_exclusions
from kpipe.labels import refuse_class_weights
from kpipe.train.argument_checks import refuse_fraction, refuse_number
from kpipe.train.optimizers.optimizer_factory import Kind, optimizer
from kpipe.train.optimizers.schedules import Plateau, Schedule, as_schedule
from kpipe.train.optimizers.switch_triggers import (
    AtEpoch,
    PerStepTrigger,
    SwitchTrigger,
    refuse_other,
)

__all__ = ["TrainingConfig"]


@dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    Args:
        epochs: how many, at least 1.
        optimizer: a name that `kpipe.train.optimizer` knows, or a Keras optimizer, whose
            configuration is kept.
        learning_rate: its rate, or the peak of its schedule; by default 1e-3, and for a Keras
            optimizer its own.
        schedule: a `kpipe.train.Schedule`, or the name of one with its defaults, over the epochs of
            each optimizer.
        switch_to: a second optimizer, named or given like the first, or None.
        switch_learning_rate: its rate; by default `learning_rate`, and for a Keras optimizer its
            own. SGD bears more than Adam when training from scratch, but pretrained weights may be
            lost at ten times the rate. SWATS chooses the rate itself.
        switch_when: the moment of the switch; needed with `switch_to`.
        class_weight: class index -> factor of its examples in the loss, 1 for those not named.
        label_smoothing: the share of each label that goes to all classes evenly, in [0, 1).
        ema: the momentum of a running average of the weights, in (0, 1), which is then what is
            validated and kept; None for the weights themselves.
        patience: epochs without a lower "val_loss" (without validation, "loss") after which the
            training ends; None for never.
    """

    epochs: int
    optimizer: Kind = "adam"
    learning_rate: float | None = None
    schedule: str | Schedule = "constant"
    switch_to: Kind | None = None
    switch_learning_rate: float | None = None
    switch_when: SwitchTrigger | None = None
    class_weight: Mapping[int, float] | None = None
    label_smoothing: float = 0.0
    ema_momentum: float | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        self._refuse_numbers()
        if (self.switch_to is None) != (self.switch_when is None):
            raise TrainingError(
                "a switch needs both the optimizer and the moment",
                expected="switch_to and switch_when together, or neither",
                received=f"switch_to={self.switch_to!r}, switch_when={self.switch_when!r}",
            )
        if self.switch_when is not None:
            refuse_other(self.switch_when)
        if isinstance(self.switch_when, AtEpoch) and self.switch_when.epoch >= self.epochs:
            raise TrainingError(
                "the switch would come after the last epoch",
                expected=f"an epoch below epochs={self.epochs}, the first being 0",
                received=str(self.switch_when),
            )
        # A plan's repr names it in checkpoints, so it must be what the optimizer is, not where.
        object.__setattr__(self, "optimizer", _described(self.optimizer))
        if self.switch_to is not None:
            object.__setattr__(self, "switch_to", _described(self.switch_to))
        if self.learning_rate is None and isinstance(self.optimizer, str):
            object.__setattr__(self, "learning_rate", 1e-3)
        # Misspelt names and impossible rates are refused here, before any photo is read.
        first = self.first_optimizer(1)
        if self.switch_to is not None:
            self._refuse_switch(first, self.second_optimizer(0, 1))

    def first_optimizer(self, steps_per_epoch: int) -> keras.optimizers.Optimizer:
        """A new optimizer for the start of the training."""
        return optimizer(
            self.optimizer,
            self.learning_rate,
            schedule=self.schedule,
            steps=self.epochs * steps_per_epoch,
            **self._averaging(),
        )

    def second_optimizer(
        self, epoch: int, steps_per_epoch: int, **chosen: Any
    ) -> keras.optimizers.Optimizer:
        """A new optimizer for a switch at `epoch`.

        Args:
            epoch: that of its first step, from which on its schedule runs.
            steps_per_epoch: batches in an epoch.
            **chosen: what the moment decides, for SWATS `learning_rate`, `momentum`, `nesterov`.
        """
        if self.switch_to is None:
            raise TrainingError("this plan has no switch", received=str(self))
        rate = self.switch_learning_rate
        if rate is None and isinstance(self.switch_to, str):
            rate = self.learning_rate
        return optimizer(
            self.switch_to,
            chosen.pop("learning_rate", rate),
            schedule=self.schedule,
            steps=max(1, self.epochs - epoch) * steps_per_epoch,
            **{**self._averaging(), **chosen},
        )

    def schedule_callbacks(self, monitor: str) -> list[keras.callbacks.Callback]:
        """New callbacks that the schedule needs, for each fit.

        Args:
            monitor: the loss that a plateau is seen in.
        """
        schedule = as_schedule(self.schedule)
        return [schedule.callback(monitor)] if isinstance(schedule, Plateau) else []

    def _averaging(self) -> dict[str, Any]:
        return (
            {}
            if self.ema_momentum is None
            else {"use_ema": True, "ema_momentum": self.ema_momentum}
        )

    def _refuse_numbers(self) -> None:
        refuse_fraction("epochs", self.epochs, 1)
        refuse_number("label_smoothing, a share of a label,", self.label_smoothing, 0, 1)
        if self.ema_momentum is not None:
            refuse_number("ema, a momentum,", self.ema_momentum, 0, 1)
            if self.ema_momentum == 0:
                raise TrainingError("ema, a momentum, is out of range", expected="(0, 1)")
        if self.patience is not None:
            refuse_fraction("patience", self.patience, 1)
        for name in ("learning_rate", "switch_learning_rate"):
            if getattr(self, name) is not None:
                refuse_number(name, getattr(self, name), 0)
        refuse_class_weights(self.class_weight, TrainingError)

    def _refuse_switch(self, first: Any, second: Any) -> None:
        if not isinstance(self.switch_when, PerStepTrigger):
            return
        name = type(self.switch_when).__name__
        if not isinstance(first, keras.optimizers.Adam) or not isinstance(
            second, keras.optimizers.SGD
        ):
            raise TrainingError(
                f"{name} switches from Adam to SGD",
                expected='optimizer="adam" or "adamw", switch_to="sgd"',
                received=f"{type(first).__name__} to {type(second).__name__}",
            )
        if self.switch_learning_rate is not None:
            raise TrainingError(
                f"{name} chooses the learning rate after the switch",
                expected="switch_learning_rate=None",
                received=str(self.switch_learning_rate),
            )


def _described(kind: Kind) -> str | dict[str, Any]:
    """A name, or the configuration of a Keras optimizer."""
    if isinstance(kind, str):
        return kind
    if isinstance(kind, Mapping):
        return dict(kind)
    if has_decay_exclusions(kind):
        raise TrainingError(
            "a plan cannot keep which weights are excluded from weight decay",
            received=type(kind).__name__,
            fix="train by model.fit, with SwitchOptimizer as a callback",
        )
    described: dict[str, Any] = keras.optimizers.serialize(optimizer(kind))
    # Keras numbers the optimizers of a process; an equal plan must read the same.
    described["config"]["name"] = type(kind).__name__.lower()
    return described
