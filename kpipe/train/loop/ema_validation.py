"""Validation with an exponential moving average (EMA) of the weights.

    after each update: average <- momentum * average + (1 - momentum) * weights

Keras' optimizers compute the averages (`use_ema`), which generalize better than the last weights
(Polyak and Juditsky 1992; Izmailov et al. 2018, arXiv 1803.05407). SwitchOptimizer continues them
in the new optimizer.

Keras averages the weights before it applies constraints. So this callback applies the constraint of
a weight to its average before validation and at the end of each epoch.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from kpipe.keras_internals import moving_averages
from kpipe.train.optimizers.optimizer_state import inner_optimizer

__all__ = ["EMAValidation"]


class EMAValidation(keras.callbacks.Callback):
    """Validate the averaged weights instead of the weights themselves."""

    def on_test_begin(self, logs: Mapping[str, float] | None = None) -> None:
        self._constrain()
        self._weights = [np.array(v.numpy()) for v in self.model.trainable_variables]
        self.model.optimizer.finalize_variable_values(self.model.trainable_variables)

    def on_test_end(self, logs: Mapping[str, float] | None = None) -> None:
        for variable, value in zip(self.model.trainable_variables, self._weights, strict=True):
            variable.assign(value)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._constrain()

    def _constrain(self) -> None:
        averages = moving_averages(inner_optimizer(self.model.optimizer))
        for variable, average in zip(self.model.trainable_variables, averages, strict=True):
            if variable.constraint is not None:
                average.assign(variable.constraint(average))
