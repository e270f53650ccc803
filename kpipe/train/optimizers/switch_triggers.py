"""The triggers that decide when `SwitchOptimizer` replaces the optimizer.

    initial_state() -> state;  after each epoch: update(state, logs) -> state
    before each epoch: should_switch(state, epoch) -> bool

A trigger is immutable and its state consists of JSON's types, so that a training run can resume
before or after the switch.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import keras

from kpipe.errors import TrainingError
from kpipe.train.argument_checks import refuse_out_of_range
from kpipe.train.stateful_callback import State
from kpipe.wrong_kinds import names_wrong_kinds_of_fields

__all__ = ["AtEpoch", "OnPlateau", "PerStepTrigger", "StepObserver", "SwitchTrigger"]

# Names under which Keras reports errors.
_ERRORS = frozenset(("mae", "mape", "mse", "msle", "rmse"))


class SwitchTrigger(abc.ABC):
    """Decide when to switch the optimizer. Triggers hold no state; callers pass it in.

    Example:
        >>> from kpipe.train import SwitchTrigger
        >>> class WhenAccurate(SwitchTrigger):
        ...     def initial_state(self):
        ...         return {"accuracy": 0.0}
        ...     def update(self, state, logs):
        ...         return {"accuracy": logs["val_accuracy"]}
        ...     def should_switch(self, state, epoch):
        ...         return state["accuracy"] > 0.8
        >>> WhenAccurate().should_switch({"accuracy": 0.9}, epoch=3)
        True
    """

    @abc.abstractmethod
    def initial_state(self) -> State:
        """Return the state before the first epoch, in JSON's types."""

    @abc.abstractmethod
    def update(self, state: State, logs: Mapping[str, float]) -> State:
        """Return the state after an epoch that ended with `logs`."""

    @abc.abstractmethod
    def should_switch(self, state: State, epoch: int) -> bool:
        """Return whether `epoch` (the first is 0) should start with the new optimizer."""

    def no_switch_message(self, state: State) -> str:
        """Return the warning of a training run that ended without a switch."""
        return f"{self} did not switch the optimizer before the training ended"


class StepObserver(abc.ABC):
    """Observe each step of an optimizer for a `PerStepTrigger`."""

    @abc.abstractmethod
    def state(self) -> State:
        """Return the trigger's current state, in JSON's types."""

    @abc.abstractmethod
    def should_switch(self) -> bool:
        """Return whether the new optimizer should make the next step."""

    @abc.abstractmethod
    def stop(self) -> None:
        """Remove the observer from the optimizer."""


class PerStepTrigger(SwitchTrigger):
    """Decide at any step, and choose arguments of the new optimizer."""

    @abc.abstractmethod
    def observe(self, model: keras.Model, state: State) -> StepObserver:
        """Start observing the steps of the model's optimizer."""

    @abc.abstractmethod
    def optimizer_arguments(self, state: State) -> dict[str, Any]:
        """Return the arguments of the new optimizer's Keras class that the trigger chooses."""

    @abc.abstractmethod
    def logs(self, state: State) -> dict[str, float]:
        """Return what the history reports about the state after an epoch."""


@names_wrong_kinds_of_fields
@dataclass(frozen=True)
class AtEpoch(SwitchTrigger):
    """Switch after a number of epochs.

    Args:
        epoch: the first epoch of the new optimizer, 0 or more; the first epoch is 0.

    Example:
        >>> from kpipe.train import AtEpoch
        >>> trigger = AtEpoch(5)  # epochs 0 to 4 use the first optimizer
        >>> [trigger.should_switch({}, epoch) for epoch in (4, 5, 6)]
        [False, True, True]
    """

    epoch: int

    def __post_init__(self) -> None:
        refuse_out_of_range("the epoch of a switch", self.epoch, 0)

    def initial_state(self) -> State:
        return {}

    def update(self, state: State, logs: Mapping[str, float]) -> State:
        return state

    def should_switch(self, state: State, epoch: int) -> bool:
        return epoch >= self.epoch


@names_wrong_kinds_of_fields
@dataclass(frozen=True)
class OnPlateau(SwitchTrigger):
    """Switch when a metric stops improving.

    Epochs without validation, as with `validation_freq`, do not count.

    Args:
        monitor: the name of the metric in the logs.
        patience: epochs in a row without improvement, at least 1.
        min_delta: an improvement must be larger than this, 0 or more.
        mode: "min" if smaller values are better, "max" if larger ones are. "auto" selects "min"
            for losses, errors and divergences, and "max" for everything else.

    Example:
        >>> from kpipe.train import OnPlateau
        >>> trigger = OnPlateau("val_loss", patience=2)
        >>> state = trigger.initial_state()
        >>> for epoch, loss in enumerate([0.9, 0.7, 0.7, 0.8]):
        ...     state = trigger.update(state, {"val_loss": loss})
        >>> trigger.should_switch(state, epoch=4)
        True
    """

    monitor: str = "val_loss"
    patience: int = 2
    min_delta: float = 0.0
    mode: Literal["auto", "min", "max"] = "auto"

    def __post_init__(self) -> None:
        refuse_out_of_range("patience", self.patience, 1)
        refuse_out_of_range("min_delta", self.min_delta, 0)
        if self.mode not in ("auto", "min", "max"):
            raise TrainingError(
                "unknown mode of a plateau", expected="auto, min or max", received=repr(self.mode)
            )

    def initial_state(self) -> State:
        return {"best": None, "waited": 0}

    def update(self, state: State, logs: Mapping[str, float]) -> State:
        if self.monitor not in logs:
            validated = any(name.startswith("val_") for name in logs)
            if self.monitor.startswith("val_") and not validated:
                return state
            raise TrainingError(
                f"the switch monitors {self.monitor!r}, which this training does not report",
                expected="one of: " + ", ".join(sorted(logs)),
                received=self.monitor,
                fix="pass validation data, or choose another monitor",
            )
        value = float(logs[self.monitor])
        if state["best"] is None:
            return {"best": value if math.isfinite(value) else None, "waited": 0}
        gain = state["best"] - value if self._smaller_is_better else value - state["best"]
        if gain > self.min_delta:
            return {"best": value, "waited": 0}
        return {"best": state["best"], "waited": state["waited"] + 1}

    def should_switch(self, state: State, epoch: int) -> bool:
        return bool(state["waited"] >= self.patience)

    @property
    def _smaller_is_better(self) -> bool:
        if self.mode != "auto":
            return self.mode == "min"
        name = self.monitor.removeprefix("val_")
        return name in _ERRORS or any(word in name for word in ("loss", "error", "divergence"))
