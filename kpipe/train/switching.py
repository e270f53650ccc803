"""One optimizer first, another later, inside a single `model.fit`.

    moment: initial state -> (after each epoch: state, logs -> state) -> due at this epoch?
    switch: build `to`, put it in the model, its compile configuration and its train function

Adam gets far fast; SGD with momentum often ends better (Keskar and Socher 2017, arXiv
1712.07628). A moment is plain data and its state is JSON, so that a training can be resumed on
either side of the switch.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from kpipe.errors import TrainingError
from kpipe.train.optimizers import optimizer

__all__ = ["AtEpoch", "Moment", "OnPlateau", "StatefulCallback", "SwitchOptimizer"]

State = dict[str, Any]


class StatefulCallback(keras.callbacks.Callback, abc.ABC):
    """A Keras callback whose state survives in a checkpoint, as JSON."""

    @abc.abstractmethod
    def get_state(self) -> State:
        """The state after the last finished epoch, in JSON's types."""

    @abc.abstractmethod
    def set_state(self, state: State) -> None:
        """Goes on from a state that `get_state` gave."""


class Moment(abc.ABC):
    """When to switch. Itself without state: what it has seen is handed to it."""

    @abc.abstractmethod
    def initial(self) -> State:
        """The state before the first epoch, in JSON's types."""

    @abc.abstractmethod
    def seen(self, state: State, logs: Mapping[str, float]) -> State:
        """The state after an epoch that ended with `logs`."""

    @abc.abstractmethod
    def due(self, state: State, epoch: int) -> bool:
        """Whether `epoch` (the first is 0) is to start with the new optimizer."""


@dataclass(frozen=True)
class AtEpoch(Moment):
    """After `epoch` epochs: `AtEpoch(5)` leaves five epochs to the first optimizer."""

    epoch: int

    def __post_init__(self) -> None:
        if self.epoch < 0:
            raise TrainingError("a switch cannot come before epoch 0", received=str(self))

    def initial(self) -> State:
        return {}

    def seen(self, state: State, logs: Mapping[str, float]) -> State:
        return state

    def due(self, state: State, epoch: int) -> bool:
        return epoch >= self.epoch


@dataclass(frozen=True)
class OnPlateau(Moment):
    """After `patience` epochs in a row without an improvement of more than `min_delta`.

    Args:
        monitor: a name in the logs; smaller is better where it ends in "loss", else larger.
        patience: epochs to wait, at least 1.
        min_delta: what counts as an improvement, in the monitored unit.
    """

    monitor: str = "val_loss"
    patience: int = 2
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        if self.patience < 1 or self.min_delta < 0:
            raise TrainingError(
                "a plateau needs a length",
                expected="patience >= 1, min_delta >= 0",
                received=str(self),
            )

    def initial(self) -> State:
        return {"best": None, "waited": 0}

    def seen(self, state: State, logs: Mapping[str, float]) -> State:
        if self.monitor not in logs:
            raise TrainingError(
                f"the switch watches {self.monitor!r}, which this fit does not report",
                expected="one of: " + ", ".join(sorted(logs)),
                received=self.monitor,
                fix="give validation data, or another monitor",
            )
        value = float(logs[self.monitor])
        if state["best"] is None:
            return {"best": value, "waited": 0}
        gain = value - state["best"]
        if self.monitor.endswith("loss"):
            gain = -gain
        if gain > self.min_delta:
            return {"best": value, "waited": 0}
        return {"best": state["best"], "waited": state["waited"] + 1}

    def due(self, state: State, epoch: int) -> bool:
        return state["waited"] >= self.patience


class SwitchOptimizer(StatefulCallback):
    """Replaces the model's optimizer once, at the start of the epoch that `when` names.

    Works in any `model.fit`. A model saved after the switch comes back with the new optimizer, its
    slots and its iterations. The history gains "switched": 0 before, 1 after. A second `fit` with
    the same callback does not switch again, unless `reset()` is called between.

    Args:
        to: the new optimizer: a name (with that optimizer's own default rate 0.01), a Keras
            optimizer whose configuration is used, or a function of the epoch that makes one.
        when: an `AtEpoch`, an `OnPlateau` or another `Moment`.
    """

    def __init__(
        self,
        to: str | keras.optimizers.Optimizer | Callable[[int], keras.optimizers.Optimizer],
        when: Moment,
    ) -> None:
        super().__init__()
        self.when = when
        self.switched_at: int | None = None
        self._make = _maker(to)
        self._seen = when.initial()

    def reset(self) -> None:
        """Forgets what was seen, so that the next fit may switch again."""
        self.switched_at = None
        self._seen = self.when.initial()

    def get_state(self) -> State:
        return {"switched_at": self.switched_at, "seen": self._seen}

    def set_state(self, state: State) -> None:
        self.switched_at = state["switched_at"]
        self._seen = state["seen"]

    def new_optimizer(self, epoch: int) -> keras.optimizers.Optimizer:
        """The optimizer for a switch at `epoch`, new and without state."""
        return self._make(epoch)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        if self.switched_at is None and self.when.due(self._seen, epoch):
            _replace(self.model, self.new_optimizer(epoch))
            self.switched_at = epoch

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = {} if logs is None else logs
        if self.switched_at is None:
            self._seen = self.when.seen(self._seen, logs)
        logs["switched"] = float(self.switched_at is not None)


def _maker(
    to: str | keras.optimizers.Optimizer | Callable[[int], keras.optimizers.Optimizer],
) -> Callable[[int], keras.optimizers.Optimizer]:
    if isinstance(to, str):
        optimizer(to, 0.01)  # a misspelt name is refused here, not at the switch
        return lambda _: optimizer(to, 0.01)
    if isinstance(to, keras.optimizers.Optimizer):
        # A Keras optimizer belongs to the first model that it trains; its configuration does not.
        config = keras.optimizers.serialize(to)
        return lambda _: keras.optimizers.deserialize(config)
    return to


def _replace(model: keras.Model, new: keras.optimizers.Optimizer) -> None:
    if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
        raise TrainingError(
            "the model's optimizer scales its loss, and that scale would be lost",
            expected="an optimizer without loss scaling",
            fix="train in float32 or bfloat16, or switch between two separate fits",
        )
    new.build(model.trainable_variables)
    model.optimizer = new
    # Keras saves the optimizer that compile() was given; a reload must find the one in use.
    configured = model._compile_config
    model._compile_config = type(configured)(**{**configured.config, "optimizer": new})
    model.make_train_function(force=True)
