"""When to switch from one optimizer to another.

    moment: initial state -> (after each epoch: state, logs -> state) -> due at this epoch?

A moment is plain data and its state is JSON, so that a training can be resumed on either side of
the switch.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from kpipe.errors import TrainingError

__all__ = [
    "AtEpoch",
    "Moment",
    "OnPlateau",
    "State",
    "Watch",
    "WatchingMoment",
    "refuse_other",
]

State = dict[str, Any]


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


class Watch(abc.ABC):
    """What looks at each step of an optimizer, for a `WatchingMoment`."""

    @abc.abstractmethod
    def state(self) -> State:
        """The moment's state now, in JSON's types."""

    @abc.abstractmethod
    def due(self) -> bool:
        """Whether the next step is to be the new optimizer's."""

    @abc.abstractmethod
    def stop(self) -> None:
        """Leaves the optimizer as it was before."""


class WatchingMoment(Moment):
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
    if not isinstance(when, Moment):
        raise TrainingError(
            "when to switch is told by a moment",
            expected="AtEpoch(n), OnPlateau(...), SWATS(...) or another kpipe.train.Moment",
            received=repr(when),
            fix=f"AtEpoch({when})" if isinstance(when, int) else "OnPlateau()",
        )


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
        return bool(state["waited"] >= self.patience)
