"""Learning rate schedules.

    schedule | learning rate at a fraction t of the steps, peak 1 | in a saved model
    constant | 1                                                  | a number
    cosine   | t / warmup, then final + (1 - final) (1 + cos) / 2 | Keras' CosineDecay
    exponential | final ** t                                      | Keras' ExponentialDecay
    step     | factor ** (number of `at` that have passed)        | Keras' PiecewiseConstantDecay
    one-cycle | initial, 1, initial, final, linear in between     | kpipe's PiecewiseLinear
    plateau  | 1, times factor at each plateau of the loss        | a number

Lengths are fractions of the steps and final learning rates fractions of the peak, so a schedule can
be declared before the number of steps is known. Only a model whose optimizer uses PiecewiseLinear
needs `import kpipe.train.optimizers.piecewise_linear` before `keras.models.load_model`.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from kpipe.errors import TrainingError, nearest
from kpipe.train.optimizers.piecewise_linear import PiecewiseLinear
from kpipe.wrong_kinds import names_wrong_kinds_of_fields

__all__ = [
    "Constant",
    "CosineDecay",
    "ExponentialDecay",
    "OneCycle",
    "ReduceOnPlateau",
    "Schedule",
    "StepDecay",
    "as_schedule",
    "schedule_names",
]


class Schedule(abc.ABC):
    """The shape of a learning rate schedule, independent of its peak and its length.

    Example:
        >>> from dataclasses import dataclass
        >>> import keras
        >>> from kpipe.train import Schedule
        >>> @dataclass(frozen=True)
        ... class InverseTime(Schedule):
        ...     def learning_rate(self, peak, steps):
        ...         return keras.optimizers.schedules.InverseTimeDecay(peak, steps, 1.0)
        >>> float(InverseTime().learning_rate(0.1, steps=100)(100))
        0.05
    """

    @abc.abstractmethod
    def learning_rate(self, peak: float, steps: int) -> Any:
        """Return a number or a Keras schedule.

        Args:
            peak: the highest learning rate, above 0.
            steps: updates of the weights, batches times epochs; at least 1.
        """


@names_wrong_kinds_of_fields
@dataclass(frozen=True)
class Constant(Schedule):
    """One learning rate, which callbacks may change.

    Example:
        >>> from kpipe.train import Constant
        >>> Constant().learning_rate(0.1, steps=100)
        0.1
    """

    def learning_rate(self, peak: float, steps: int) -> float:
        return peak


@names_wrong_kinds_of_fields
@dataclass(frozen=True)
class CosineDecay(Schedule):
    """Half a cosine from the peak to `final` (Loshchilov and Hutter 2017, arXiv 1608.03983).

    Args:
        warmup: the fraction of the steps, in [0, 1), in which the learning rate rises linearly to
            the peak (Goyal et al. 2017, arXiv 1706.02677).
        final: the last learning rate as a fraction of the peak, in [0, 1].

    Example:
        >>> from kpipe.train import CosineDecay
        >>> schedule = CosineDecay(warmup=0.1).learning_rate(0.1, steps=100)
        >>> [round(float(schedule(step)), 3) for step in (0, 10, 55, 100)]
        [0.01, 0.1, 0.05, 0.0]
    """

    warmup: float = 0.0
    final: float = 0.0

    def __post_init__(self) -> None:
        _refuse_unless(0 <= self.warmup < 1 and 0 <= self.final <= 1, self, "fractions of 1")

    def learning_rate(self, peak: float, steps: int) -> Any:
        cosine = keras.optimizers.schedules.CosineDecay
        rising = min(round(self.warmup * steps), steps - 1)
        if rising == 0:
            return cosine(peak, steps, alpha=self.final)
        # The warmup starts above 0: at 0, the first step would have no effect.
        return cosine(
            peak / rising,
            steps - rising,
            alpha=self.final,
            warmup_target=peak,
            warmup_steps=rising,
        )


@names_wrong_kinds_of_fields
@dataclass(frozen=True)
class ExponentialDecay(Schedule):
    """The same factor at each step, down to `final`.

    Args:
        final: the last learning rate as a fraction of the peak, in (0, 1].

    Example:
        >>> from kpipe.train import ExponentialDecay
        >>> schedule = ExponentialDecay(final=0.01).learning_rate(0.1, steps=100)
        >>> [round(float(schedule(step)), 3) for step in (0, 50, 100)]
        [0.1, 0.01, 0.001]
    """

    final: float = 0.01

    def __post_init__(self) -> None:
        _refuse_unless(0 < self.final <= 1, self, "a fraction of 1")

    def learning_rate(self, peak: float, steps: int) -> Any:
        return keras.optimizers.schedules.ExponentialDecay(peak, steps, self.final)


@names_wrong_kinds_of_fields
@dataclass(frozen=True)
class StepDecay(Schedule):
    """A constant learning rate that drops at given points.

    Args:
        at: the points as fractions of the steps, in (0, 1), ascending.
        factor: on the learning rate at each point, in (0, 1].

    Example:
        >>> from kpipe.train import StepDecay
        >>> schedule = StepDecay(at=(0.5, 0.75), factor=0.1).learning_rate(0.1, steps=100)
        >>> [round(float(schedule(step)), 4) for step in (49, 50, 75)]
        [0.1, 0.01, 0.001]
    """

    at: tuple[float, ...] = (0.5, 0.75)
    factor: float = 0.1

    def __post_init__(self) -> None:
        ascending = bool(self.at) and list(self.at) == sorted(set(self.at))
        within = all(0 < fraction < 1 for fraction in self.at)
        valid = ascending and within and 0 < self.factor <= 1
        _refuse_unless(valid, self, "ascending fractions of 1")

    def learning_rate(self, peak: float, steps: int) -> Any:
        # Keras holds a value up to and including its boundary, and counts updates from 0.
        return keras.optimizers.schedules.PiecewiseConstantDecay(
            [round(fraction * steps) - 1 for fraction in self.at],
            [peak * self.factor**n for n in range(len(self.at) + 1)],
        )


@names_wrong_kinds_of_fields
@dataclass(frozen=True)
class OneCycle(Schedule):
    """A linear rise, fall and final descent (Smith and Topin 2017, arXiv 1708.07120).

    The momentum does not change.

    Args:
        rise: the fraction of the steps from `initial` to the peak, and of those back to `initial`,
            in (0, 0.5]. The remaining steps descend to `final`.
        initial: the learning rate before and after the cycle, as a fraction of the peak, in (0, 1].
        final: the last learning rate as a fraction of the peak, in [0, initial].

    Example:
        >>> from kpipe.train import OneCycle
        >>> schedule = OneCycle(rise=0.4).learning_rate(0.1, steps=100)
        >>> [round(float(schedule(step)), 4) for step in (0, 40, 80, 100)]
        [0.01, 0.1, 0.01, 0.0001]
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

    def learning_rate(self, peak: float, steps: int) -> PiecewiseLinear:
        rise = round(self.rise * steps)
        return PiecewiseLinear(
            [0, rise, 2 * rise, steps],
            [peak * self.initial, peak, peak * self.initial, peak * self.final],
        )


@names_wrong_kinds_of_fields
@dataclass(frozen=True)
class ReduceOnPlateau(Schedule):
    """A learning rate that drops when the loss stops improving, by Keras' ReduceLROnPlateau.

    Args:
        factor: on the learning rate at each plateau, in (0, 1).
        patience: epochs in a row without improvement, at least 1.
        min_delta: an improvement must be larger than this, 0 or more.
        min_lr: the lowest learning rate, 0 or more.

    Example:
        >>> from kpipe.train import ReduceOnPlateau
        >>> callback = ReduceOnPlateau(factor=0.5, patience=2).callback("val_loss")
        >>> callback.monitor, callback.factor, callback.patience
        ('val_loss', 0.5, 2)
    """

    factor: float = 0.1
    patience: int = 3
    min_delta: float = 0.0
    min_lr: float = 0.0

    def __post_init__(self) -> None:
        _refuse_unless(
            0 < self.factor < 1 and self.patience >= 1 and self.min_delta >= 0 and self.min_lr >= 0,
            self,
            "factor in (0, 1), patience >= 1, min_delta >= 0, min_lr >= 0",
        )

    def learning_rate(self, peak: float, steps: int) -> float:
        return peak

    def callback(self, monitor: str) -> keras.callbacks.Callback:
        """Return a new callback that applies this schedule to the loss `monitor` of the logs."""
        return keras.callbacks.ReduceLROnPlateau(
            monitor,
            factor=self.factor,
            patience=self.patience,
            mode="min",
            min_delta=self.min_delta,
            min_lr=self.min_lr,
        )


_SCHEDULES: Mapping[str, type[Schedule]] = {
    "constant": Constant,
    "cosine": CosineDecay,
    "exponential": ExponentialDecay,
    "one-cycle": OneCycle,
    "plateau": ReduceOnPlateau,
    "step": StepDecay,
}


def schedule_names() -> list[str]:
    """Return the names that `schedule=` accepts, sorted.

    Example:
        >>> from kpipe.train import schedule_names
        >>> schedule_names()
        ['constant', 'cosine', 'exponential', 'one-cycle', 'plateau', 'step']
    """
    return sorted(_SCHEDULES)


def as_schedule(schedule: str | Schedule) -> Schedule:
    """Return a schedule, or the one of that name with its defaults.

    Raises:
        TrainingError: an unknown name.
    """
    if isinstance(schedule, Schedule):
        return schedule
    if schedule not in _SCHEDULES:
        raise TrainingError(
            f"there is no learning rate schedule {schedule!r}", fix=nearest(schedule, _SCHEDULES)
        )
    return _SCHEDULES[schedule]()


def _refuse_unless(valid: bool, schedule: Schedule, expected: str) -> None:
    if not valid:
        raise TrainingError("a schedule is invalid", expected=expected, received=str(schedule))
