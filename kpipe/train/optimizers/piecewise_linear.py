"""A Keras learning rate schedule of straight lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

__all__ = ["PiecewiseLinear"]


@keras.saving.register_keras_serializable("kpipe")
class PiecewiseLinear(keras.optimizers.schedules.LearningRateSchedule):
    """Linear interpolation between learning rates at given steps, constant outside of them.

    Args:
        steps: at least one, in ascending order; a step may occur twice.
        rates: the learning rate at each of the steps.
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
            fraction = keras.ops.where(at >= end, 1.0, (at - begin) / max(1, end - begin))
            line = self.rates[i] + (self.rates[i + 1] - self.rates[i]) * fraction
            rate = keras.ops.where(at >= begin, line, rate)
        return rate

    def get_config(self) -> dict[str, Any]:
        return {"steps": self.steps, "rates": self.rates}
