"""When to switch from one optimizer to another.

    moment: initial state -> (after each epoch: state, logs -> state) -> due at this epoch?

A moment is plain data and its state is JSON, so that a training can be resumed on either side of
the switch.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import keras

from kpipe.errors import TrainingError
from kpipe.train.argument_checks import refuse_fraction, refuse_number

__all__ = [
    "AtEpoch",
    "OnPlateau",
    "PerStepTrigger",
    "State",
    "SwitchTrigger",
    "Watch",
    "refuse_other",
]

State = dict[str, Any]
# Names under which Keras reports errors.
_ERRORS = frozenset(("mae", "mape", "mse", "msle", "rmse"))


class SwitchTrigger(abc.ABC):
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


class Watch(abc.ABC):
    """What looks at each step of an optimizer, for a `PerStepTrigger`."""

    @abc.abstractmethod
    def state(self) -> State:
        """The moment's state now, in JSON's types."""

    @abc.abstractmethod
    def due(self) -> bool:
        """Whether the next step is to be the new optimizer's."""

    @abc.abstractmethod
    def stop(self) -> None:
        """Leaves the optimizer as it was before."""


class PerStepTrigger(SwitchTrigger):
    """A moment that may come at any step, and that says how to go on."""

    @abc.abstractmethod
    def watch(self, model: keras.Model, state: State) -> Watch:
        """Begins to look at the steps of the model's optimizer."""

    @abc.abstractmethod
    def options(self, state: State) -> dict[str, Any]:
        """What the moment decides about the new optimizer: arguments of its Keras class."""

    @abc.abstractmethod
    def logs(self, state: State) -> dict[str, float]:
        """What the history shows of the state after an epoch."""

    @abc.abstractmethod
    def missed(self, state: State) -> str:
        """Why the moment has not come, for the end of a training."""


def refuse_other(when: object) -> None:
    """Raises a TrainingError for what is no moment, such as the number of an epoch."""
    if not isinstance(when, SwitchTrigger):
        raise TrainingError(
            "when to switch is told by a moment",
            expected="AtEpoch(n), OnPlateau(...), SWATS(...) or another kpipe.train.SwitchTrigger",
            received=repr(when),
            fix=f"AtEpoch({when})" if isinstance(when, int) else "OnPlateau()",
        )


@dataclass(frozen=True)
class AtEpoch(SwitchTrigger):
    """After `epoch` epochs: `AtEpoch(5)` leaves five epochs to the first optimizer."""

    epoch: int

    def __post_init__(self) -> None:
        refuse_fraction("the epoch of a switch", self.epoch, 0)

    def initial(self) -> State:
        return {}

    def seen(self, state: State, logs: Mapping[str, float]) -> State:
        return state

    def due(self, state: State, epoch: int) -> bool:
        return epoch >= self.epoch


@dataclass(frozen=True)
class OnPlateau(SwitchTrigger):
    """After `patience` epochs in a row without an improvement of more than `min_delta`.

    Epochs without validation, as `validation_freq` leaves them, do not count.

    Args:
        monitor: a name in the logs.
        patience: epochs to wait, at least 1.
        min_delta: what counts as an improvement, in the monitored unit.
        mode: "min" where smaller is better, "max" where larger is; "auto" takes losses, errors and
            divergences for the first, everything else for the second.
    """

    monitor: str = "val_loss"
    patience: int = 2
    min_delta: float = 0.0
    mode: Literal["auto", "min", "max"] = "auto"

    def __post_init__(self) -> None:
        refuse_fraction("patience", self.patience, 1)
        refuse_number("min_delta", self.min_delta, 0)
        if self.mode not in ("auto", "min", "max"):
            raise TrainingError(
                f"no mode of a plateau is called {self.mode!r}", expected="auto, min or max"
            )

    def initial(self) -> State:
        return {"best": None, "waited": 0}

    def seen(self, state: State, logs: Mapping[str, float]) -> State:
        if self.monitor not in logs:
            validated = any(name.startswith("val_") for name in logs)
            if self.monitor.startswith("val_") and not validated:
                return state
            raise TrainingError(
                f"the switch watches {self.monitor!r}, which this fit does not report",
                expected="one of: " + ", ".join(sorted(logs)),
                received=self.monitor,
                fix="give validation data, or another monitor",
            )
        value = float(logs[self.monitor])
        if state["best"] is None:
            return {"best": value if math.isfinite(value) else None, "waited": 0}
        gain = state["best"] - value if self._smaller_is_better else value - state["best"]
        if gain > self.min_delta:
            return {"best": value, "waited": 0}
        return {"best": state["best"], "waited": state["waited"] + 1}

    def due(self, state: State, epoch: int) -> bool:
        return bool(state["waited"] >= self.patience)

    @property
    def _smaller_is_better(self) -> bool:
        if self.mode != "auto":
            return self.mode == "min"
        name = self.monitor.removeprefix("val_")
        return name in _ERRORS or any(word in name for word in ("loss", "error", "divergence"))
