"""How a learning rate runs through a training.

    schedule | rate after a share t of the steps, peak = 1        | in a saved model
    constant | 1                                                  | a number
    cosine   | t / warmup, then final + (1 - final) (1 + cos) / 2 | Keras' CosineDecay
    exponential | final ** t                                      | Keras' ExponentialDecay
    step     | factor ** (how many of `at` are behind)            | Keras' PiecewiseConstantDecay
    one-cycle | initial, 1, initial, final, linear in between     | PiecewiseLinear, from here
    plateau  | 1, times factor when it stagnates                  | a number

Lengths are shares of the steps, ends are shares of the peak, so that a schedule is declared before
the number of steps is known. Only a model with PiecewiseLinear in its optimizer needs
`import kpipe.train.optimizers.schedules` before `keras.models.load_model`.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from kpipe.errors import TrainingError, nearest

__all__ = [
    "Constant",
    "Cosine",
    "Exponential",
    "OneCycle",
    "PiecewiseLinear",
    "Plateau",
    "Schedule",
    "StepDecay",
    "as_schedule",
    "schedule_names",
]


class Schedule(abc.ABC):
    """A course of the learning rate, independent of its height and its length."""

    @abc.abstractmethod
    def rate(self, peak: float, steps: int) -> Any:
        """A number or a Keras schedule.

        Args:
            peak: the highest rate, above 0.
            steps: updates of the weights, batches times epochs; at least 1.
        """


@dataclass(frozen=True)
class Constant(Schedule):
    """One rate, which callbacks may change."""

    def rate(self, peak: float, steps: int) -> float:
        return peak


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from the peak to `final` (Loshchilov and Hutter 2017, arXiv 1608.03983).

    Args:
        warmup: the share of the steps, in [0, 1), in which the rate rises linearly to the peak
            (Goyal et al. 2017, arXiv 1706.02677).
        final: the last rate as a share of the peak, in [0, 1].
    """

    warmup: float = 0.0
    final: float = 0.0

    def __post_init__(self) -> None:
        _refuse_unless(0 <= self.warmup < 1 and 0 <= self.final <= 1, self, "shares of 1")

    def rate(self, peak: float, steps: int) -> Any:
        cosine = keras.optimizers.schedules.CosineDecay
        rising = min(round(self.warmup * steps), steps - 1)
        if rising == 0:
            return cosine(peak, steps, alpha=self.final)
        # From the first step on there is a rate: with 0, that step would be lost.
        return cosine(
            peak / rising,
            steps - rising,
            alpha=self.final,
            warmup_target=peak,
            warmup_steps=rising,
        )


@dataclass(frozen=True)
class Exponential(Schedule):
    """The same factor at each step, down to `final`, a share of the peak in (0, 1]."""

    final: float = 0.01

    def __post_init__(self) -> None:
        _refuse_unless(0 < self.final <= 1, self, "a share of 1")

    def rate(self, peak: float, steps: int) -> Any:
        return keras.optimizers.schedules.ExponentialDecay(peak, steps, self.final)


@dataclass(frozen=True)
class StepDecay(Schedule):
    """Multiplied by `factor`, in (0, 1], after each of the shares `at` of the steps, ascending."""

    at: tuple[float, ...] = (0.5, 0.75)
    factor: float = 0.1

    def __post_init__(self) -> None:
        ascending = bool(self.at) and list(self.at) == sorted(set(self.at))
        within = all(0 < share < 1 for share in self.at)
        _refuse_unless(ascending and within and 0 < self.factor <= 1, self, "ascending shares of 1")

    def rate(self, peak: float, steps: int) -> Any:
        # Keras keeps a value up to its boundary, and counts updates from 0.
        return keras.optimizers.schedules.PiecewiseConstantDecay(
            [round(share * steps) - 1 for share in self.at],
            [peak * self.factor**n for n in range(len(self.at) + 1)],
        )


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up, down, and out (Smith and Topin 2017, arXiv 1708.07120); momentum stays as it is.

    Args:
        rise: the share of the steps from `initial` to the peak, and again back, in (0, 0.5]; what
            is left goes down to `final`.
        initial: the rate before and after the cycle, as a share of the peak, in (0, 1].
        final: the last rate, as a share of the peak, in [0, initial].
    """

    rise: float = 0.45
    initial: float = 0.1
    final: float = 0.001

    def __post_init__(self) -> None:
        _refuse_unless(
            0 < self.rise <= 0.5 and 0 <= self.final <= self.initial <= 1 and self.initial > 0,
            self,
            "rise in (0, 0.5], 0 <= final <= initial <= 1",
        )

    def rate(self, peak: float, steps: int) -> PiecewiseLinear:
        rise = round(self.rise * steps)
        return PiecewiseLinear(
            [0, rise, 2 * rise, steps],
            [peak * self.initial, peak, peak * self.initial, peak * self.final],
        )


@dataclass(frozen=True)
class Plateau(Schedule):
    """Multiplied by `factor` after `patience` epochs without improvement: Keras' ReduceLROnPlateau.

    Args:
        factor: in (0, 1).
        patience: epochs, at least 1.
        min_delta: what counts as an improvement, in the unit of what is watched; 0 or more.
        min_rate: the rate falls no further; 0 or more.
    """

    factor: float = 0.1
    patience: int = 3
    min_delta: float = 0.0
    min_rate: float = 0.0

    def __post_init__(self) -> None:
        _refuse_unless(
            0 < self.factor < 1
            and self.patience >= 1
            and self.min_delta >= 0
            and self.min_rate >= 0,
            self,
            "factor in (0, 1), patience >= 1, min_delta >= 0, min_rate >= 0",
        )

    def rate(self, peak: float, steps: int) -> float:
        return peak

    def callback(self, monitor: str) -> keras.callbacks.Callback:
        """A new callback that carries this schedule out.

        Args:
            monitor: a loss in the logs.
        """
        return keras.callbacks.ReduceLROnPlateau(
            monitor,
            factor=self.factor,
            patience=self.patience,
            mode="min",
            min_delta=self.min_delta,
            min_lr=self.min_rate,
        )


_SCHEDULES: Mapping[str, type[Schedule]] = {
    "constant": Constant,
    "cosine": Cosine,
    "exponential": Exponential,
    "one-cycle": OneCycle,
    "plateau": Plateau,
    "step": StepDecay,
}


def schedule_names() -> list[str]:
    """The names that `as_schedule` knows, sorted."""
    return sorted(_SCHEDULES)


def as_schedule(schedule: str | Schedule) -> Schedule:
    """A schedule, or the one of that name with its defaults.

    Raises:
        TrainingError: an unknown name.
    """
    if isinstance(schedule, Schedule):
        return schedule
    if schedule not in _SCHEDULES:
        raise TrainingError(
            f"no learning-rate schedule is called {schedule!r}",
            fix=nearest(str(schedule), _SCHEDULES),
        )
    return _SCHEDULES[schedule]()


@keras.saving.register_keras_serializable("kpipe")
class PiecewiseLinear(keras.optimizers.schedules.LearningRateSchedule):
    """Straight lines between rates at given steps; before and after them, the outermost rates.

    Args:
        steps: not descending, at least one.
        rates: one for each of the steps.
    """

    def __init__(self, steps: Sequence[int], rates: Sequence[float]) -> None:
        super().__init__()
        self.steps = list(steps)
        self.rates = list(rates)

    def __call__(self, step: Any) -> Any:
        at = keras.ops.cast(step, "float32")
        rate = keras.ops.convert_to_tensor(self.rates[0], "float32")
        for i in range(len(self.steps) - 1):
            begin, end = self.steps[i : i + 2]
            share = keras.ops.where(at >= end, 1.0, (at - begin) / max(1, end - begin))
            line = self.rates[i] + (self.rates[i + 1] - self.rates[i]) * share
            rate = keras.ops.where(at >= begin, line, rate)
        return rate

    def get_config(self) -> dict[str, Any]:
        return {"steps": self.steps, "rates": self.rates}


def _refuse_unless(fine: bool, schedule: Schedule, expected: str) -> None:
    if not fine:
        raise TrainingError(
            "a schedule cannot run like this", expected=expected, received=str(schedule)
        )
