"""How to train: what of a training is declared before it begins.

plan := epochs, first optimizer, [moment, second optimizer], class weights
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import keras

from kpipe.errors import TrainingError
from kpipe.train.optimizers import optimizer
from kpipe.train.switching import Moment

__all__ = ["FitPlan"]


@dataclass(frozen=True)
class FitPlan:
    """How to train.

    Args:
        epochs: how many, at least 1.
        optimizer: a name that `kpipe.train.optimizer` knows.
        learning_rate: its rate, or where its schedule starts.
        schedule: "constant", or "cosine" over the epochs of each optimizer.
        switch_to: the name of a second optimizer, or None.
        switch_learning_rate: its rate; by default `learning_rate`. SGD bears more than Adam when
            training from scratch, but pretrained weights may be lost at ten times the rate.
        switch_when: the moment of the switch; needed with `switch_to`.
        class_weight: class index -> factor of its examples in the loss.
    """

    epochs: int
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    switch_to: str | None = None
    switch_learning_rate: float | None = None
    switch_when: Moment | None = None
    class_weight: Mapping[int, float] | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise TrainingError(
                "a training needs epochs", expected="1 or more", received=str(self.epochs)
            )
        if (self.switch_to is None) != (self.switch_when is None):
            raise TrainingError(
                "a switch needs both the optimizer and the moment",
                expected="switch_to and switch_when together, or neither",
                received=f"switch_to={self.switch_to!r}, switch_when={self.switch_when!r}",
            )
        # Misspelt names and impossible rates are refused here, before any photo is read.
        self.first_optimizer(1)
        if self.switch_to is not None:
            self.second_optimizer(0, 1)

    def first_optimizer(self, steps_per_epoch: int) -> keras.optimizers.Optimizer:
        """A new optimizer for the start of the training."""
        return optimizer(
            self.optimizer,
            self.learning_rate,
            schedule=self.schedule,
            steps=self.epochs * steps_per_epoch,
        )

    def second_optimizer(self, epoch: int, steps_per_epoch: int) -> keras.optimizers.Optimizer:
        """A new optimizer for a switch at `epoch`."""
        if self.switch_to is None:
            raise TrainingError("this plan has no switch", received=str(self))
        rate = self.switch_learning_rate
        return optimizer(
            self.switch_to,
            self.learning_rate if rate is None else rate,
            schedule=self.schedule,
            steps=max(1, self.epochs - epoch) * steps_per_epoch,
        )
