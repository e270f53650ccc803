"""The settings of a training run.

config := epochs, optimizer, its schedule, [trigger, second optimizer], weights and smoothing in the
          loss, averaging of weights, early stopping
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from kpipe.class_indices import refuse_class_weights
from kpipe.errors import TrainingError
from kpipe.keras_internals import has_decay_exclusions
from kpipe.train.argument_checks import refuse_out_of_range
from kpipe.train.optimizers.optimizer_factory import OptimizerLike, optimizer
from kpipe.train.optimizers.schedules import ReduceOnPlateau, Schedule, as_schedule
from kpipe.train.optimizers.switch_triggers import AtEpoch, PerStepTrigger, SwitchTrigger
from kpipe.wrong_kinds import names_wrong_kinds_of_fields

__all__ = ["TrainingConfig"]


@names_wrong_kinds_of_fields
@dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    Args:
        epochs: number of epochs, at least 1.
        optimizer: a name that `kpipe.train.optimizer` accepts, or a Keras optimizer, whose
            configuration is stored.
        learning_rate: the learning rate, or the peak of its schedule, above 0. None: 1e-3, or
            the Keras optimizer's own rate.
        schedule: a `kpipe.train.Schedule`, or the name of one with its defaults, over the epochs of
            each optimizer.
        switch_to: the second optimizer, given like the first, or None.
        switch_learning_rate: the learning rate of the second optimizer. None for `learning_rate`
            or, with a Keras optimizer, its own. From scratch, SGD tolerates a higher learning rate
            than Adam, but ten times the learning rate may destroy pretrained weights. SWATS chooses
            the learning rate itself.
        switch_when: the trigger of the switch; required with `switch_to`.
        class_weight: factors on the loss of each class's examples, by class index; 1 for the rest.
        label_smoothing: the fraction of each label to spread evenly over all classes, in [0, 1).
        ema_momentum: the momentum, in (0, 1), of an exponential moving average of the weights,
            which is then validated and kept; None for the weights themselves.
        weight_decay: the decoupled weight decay of "adamw" and "sgd", 0 or more; None for Keras'
            default. It applies to all weights, as in Keras.
        clip_norm: the largest norm of all gradients together, above 0; longer gradients are
            shortened to it (Pascanu et al. 2013, arXiv 1211.5063). None for no limit.
        patience: stop after this many epochs without a lower "val_loss" (without validation,
            "loss"), at least 1; None to never stop early.

    Raises:
        TrainingError: an unknown name, a number out of range, or a switch that cannot happen.

    Example:
        >>> from kpipe.train import OnPlateau, TrainingConfig
        >>> config = TrainingConfig(
        ...     20, learning_rate=3e-4, schedule="cosine", switch_to="sgd", switch_when=OnPlateau()
        ... )
        >>> config.optimizer
        'adam'
    """

    epochs: int
    optimizer: OptimizerLike = "adam"
    learning_rate: float | None = None
    schedule: str | Schedule = "constant"
    switch_to: OptimizerLike | None = None
    switch_learning_rate: float | None = None
    switch_when: SwitchTrigger | None = None
    class_weight: Mapping[int, float] | None = None
    label_smoothing: float = 0.0
    ema_momentum: float | None = None
    patience: int | None = None
    weight_decay: float | None = None
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        refuse_out_of_range("epochs", self.epochs, 1)
        refuse_out_of_range("label_smoothing", self.label_smoothing, 0, 1)
        if self.ema_momentum is not None and not 0 < self.ema_momentum < 1:
            raise TrainingError(
                "ema_momentum is out of range", expected="(0, 1)", received=str(self.ema_momentum)
            )
        if self.patience is not None:
            refuse_out_of_range("patience", self.patience, 1)
        for name in ("learning_rate", "switch_learning_rate", "weight_decay"):
            if getattr(self, name) is not None:
                refuse_out_of_range(name, getattr(self, name), 0)
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise TrainingError(
                "clip_norm is out of range", expected="above 0", received=str(self.clip_norm)
            )
        refuse_class_weights(self.class_weight, TrainingError)
        if (self.switch_to is None) != (self.switch_when is None):
            raise TrainingError(
                "a switch needs both an optimizer and a trigger",
                expected="switch_to and switch_when together, or neither",
                received=f"switch_to={self.switch_to!r}, switch_when={self.switch_when!r}",
            )
        if isinstance(self.switch_when, AtEpoch) and self.switch_when.epoch >= self.epochs:
            raise TrainingError(
                "the switch would come after the last epoch",
                expected=f"an epoch below epochs={self.epochs}, the first being 0",
                received=str(self.switch_when),
            )
        # Checkpoints compare the repr, so store configurations instead of optimizer objects.
        object.__setattr__(self, "optimizer", _serialized(self.optimizer))
        if self.switch_to is not None:
            object.__setattr__(self, "switch_to", _serialized(self.switch_to))
        if self.learning_rate is None and isinstance(self.optimizer, str):
            object.__setattr__(self, "learning_rate", 1e-3)
        # Reject unknown names and invalid numbers now, before any photo is read.
        first = self.first_optimizer(1)
        if self.switch_to is not None:
            self._check_per_step_switch(first, self.second_optimizer(0, 1))

    def first_optimizer(self, steps_per_epoch: int) -> keras.optimizers.Optimizer:
        """Create the optimizer for the start of training."""
        return optimizer(
            self.optimizer,
            self.learning_rate,
            schedule=self.schedule,
            steps=self.epochs * steps_per_epoch,
            **self._options(),
        )

    def second_optimizer(
        self, epoch: int, steps_per_epoch: int, **chosen: Any
    ) -> keras.optimizers.Optimizer:
        """Create the optimizer for a switch at `epoch`.

        Args:
            epoch: the epoch of its first step, at which its schedule starts.
            steps_per_epoch: batches in an epoch.
            **chosen: what the trigger chooses; SWATS: `learning_rate`, `momentum`, `nesterov`.
        """
        if self.switch_to is None:
            raise TrainingError("this configuration has no switch", received=str(self))
        learning_rate = self.switch_learning_rate
        if learning_rate is None and isinstance(self.switch_to, str):
            learning_rate = self.learning_rate
        return optimizer(
            self.switch_to,
            chosen.pop("learning_rate", learning_rate),
            schedule=self.schedule,
            steps=max(1, self.epochs - epoch) * steps_per_epoch,
            **{**self._options(), **chosen},
        )

    def schedule_callbacks(self, monitor: str) -> list[keras.callbacks.Callback]:
        """Return new callbacks for one fit; a plateau schedule monitors the loss `monitor`."""
        schedule = as_schedule(self.schedule)
        return [schedule.callback(monitor)] if isinstance(schedule, ReduceOnPlateau) else []

    def _options(self) -> dict[str, Any]:
        """Return the arguments of both optimizers."""
        options: dict[str, Any] = {}
        if self.ema_momentum is not None:
            options |= {"use_ema": True, "ema_momentum": self.ema_momentum}
        if self.weight_decay is not None:
            options["weight_decay"] = self.weight_decay
        if self.clip_norm is not None:
            options["global_clipnorm"] = self.clip_norm
        return options

    def _check_per_step_switch(self, first: Any, second: Any) -> None:
        if not isinstance(self.switch_when, PerStepTrigger):
            return
        name = type(self.switch_when).__name__
        adam_to_sgd = isinstance(first, keras.optimizers.Adam) and isinstance(
            second, keras.optimizers.SGD
        )
        if not adam_to_sgd:
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


def _serialized(kind: OptimizerLike) -> str | dict[str, Any]:
    """Return a name, or the configuration of a Keras optimizer."""
    if isinstance(kind, str):
        return kind
    if isinstance(kind, Mapping):
        return dict(kind)
    if has_decay_exclusions(kind):
        raise TrainingError(
            "a TrainingConfig cannot store which weights are excluded from weight decay",
            received=type(kind).__name__,
            fix="train with model.fit, with SwitchOptimizer as a callback",
        )
    serialized: dict[str, Any] = keras.optimizers.serialize(optimizer(kind))
    # Keras numbers the optimizers of a process, but equal configurations must have equal reprs.
    serialized["config"]["name"] = type(kind).__name__.lower()
    return serialized
