"""Adam that goes over to SGD for each weight on its own, at the rate that Adam's steps suggest.

    for each weight tensor, with Adam's step p, gradient g and learning rate l, as long as it
    follows Adam:
    gamma   = p.p / -(p.g)                                    if p.g is not 0
    average = beta2 * average + (1 - beta2) * gamma / l
    rate    = average / (1 - beta2 ** k)
    at step k > 1, if |rate * l - gamma| < tolerance and rate > 0, it follows SGD from the next on:
        v = beta1 * v + g;   weight -= (1 - beta1) * rate * l * v

Algorithm 1 of Keskar and Socher 2017 (arXiv 1712.07628) with one estimate for each tensor instead
of one for all. The estimate is a multiple of the learning rate, so that a schedule goes on after
the switch; with a constant learning rate this is the algorithm of the paper.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from kpipe.errors import TrainingError
from kpipe.keras_internals import first_moments, variable_index
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["LayerwiseSWATS"]


@keras.saving.register_keras_serializable("kpipe")
class LayerwiseSWATS(keras.optimizers.Adam):
    """Adam that switches to SGD for each weight on its own (SWATS by layers).

    Use it as any Keras optimizer: `model.compile(LayerwiseSWATS(1e-3))`. A kernel and a bias of a
    layer switch apart. To load a model that was saved with it, import `kpipe.train` first.

    Args:
        learning_rate: a number or a Keras schedule, which SGD follows, too, from the estimated
            rate on.
        tolerance: the bound on the distance of an estimate from its average, in the unit of a
            learning rate, above 0. A replication on CIFAR-10 used 1e-5.
        **arguments: of `keras.optimizers.Adam`, except `amsgrad`.

    Raises:
        TrainingError: a tolerance of 0 or less, or `amsgrad`.

    Source:
        Keskar and Socher 2017, arXiv 1712.07628, algorithm 1.

    Example:
        >>> import keras, numpy as np
        >>> from kpipe.train import LayerwiseSWATS
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile(LayerwiseSWATS(tolerance=0.1), "mse")
        >>> x, y = np.ones((8, 4)), np.ones((8, 1))
        >>> history = model.fit(x, y, batch_size=2, verbose=0)
        >>> model.optimizer.switched(model.trainable_variables)
        [2, 2]
    """

    @names_wrong_kinds
    def __init__(
        self,
        learning_rate: Any = 1e-3,
        tolerance: float = 1e-5,
        name: str = "layerwise_swats",
        **arguments: Any,
    ) -> None:
        if arguments.get("amsgrad"):
            raise TrainingError("SWATS estimates a rate from Adam's steps", expected="no amsgrad")
        if not 0 < tolerance < math.inf:
            raise TrainingError(
                "the tolerance of SWATS is out of range", expected="> 0", received=str(tolerance)
            )
        super().__init__(learning_rate, name=name, **arguments)
        self.tolerance = tolerance

    def build(self, variables: list[Any]) -> None:
        if self.built:
            return
        super().build(variables)
        # float64 as the tolerance may be 1e-9 of rates near 1.
        self._moments = first_moments(self)
        self._averages = self._scalars("average", len(variables), "float64")
        self._rates = self._scalars("rate", len(variables), "float64")
        self._switches = self._scalars("switch", len(variables), "int64")

    def _scalars(self, name: str, count: int, dtype: str) -> list[Any]:
        return [self.add_variable((), dtype=dtype, name=f"{name}_{n}") for n in range(count)]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        ops, index = keras.ops, variable_index(self, variable)
        rate, switch, momentum = (
            self._rates[index],
            self._switches[index],
            first_moments(self)[index],
        )
        gradient = ops.cast(_read(gradient), variable.dtype)
        before, velocity, by_adam = _read(variable), _read(momentum), _read(switch) < 1
        super().update_step(gradient, variable, learning_rate)
        due, estimate = self._estimate(
            self._averages[index], _read(variable) - before, gradient, learning_rate, by_adam
        )
        descent = self.beta_1 * velocity + gradient
        scale = ops.cast((1 - self.beta_1) * _read(rate), variable.dtype)
        by_sgd = before - scale * ops.cast(learning_rate, variable.dtype) * descent
        self.assign(variable, ops.where(by_adam, _read(variable), by_sgd))
        # SGD starts without momentum. Adam's step changed the slot of a weight that follows SGD.
        kept = ops.where(by_adam, _read(momentum), descent)
        self.assign(momentum, ops.where(due, ops.zeros_like(kept), kept))
        self.assign(rate, ops.where(due, estimate, _read(rate)))
        now = ops.cast(self.iterations + 1, "int64")
        self.assign(switch, ops.where(due, now, _read(switch)))

    def _estimate(
        self, average: Any, step: Any, gradient: Any, learning_rate: Any, by_adam: Any
    ) -> tuple[Any, Any]:
        """Update the running average of a weight; return whether it converged, and to what."""
        ops = keras.ops
        across, along = _dot(step, gradient), _dot(step, step)
        measured = ops.logical_and(by_adam, ops.not_equal(across, 0.0))
        gamma = along / ops.where(measured, -across, 1.0)
        unit = ops.cast(learning_rate, "float64")
        old = _read(average)
        updated = self.beta_2 * old + (1 - self.beta_2) * gamma / unit
        self.assign(average, ops.where(measured, updated, old))
        k = ops.cast(self.iterations + 1, "float64")
        rate = updated / (1 - ops.power(ops.cast(self.beta_2, "float64"), k))
        near = ops.abs(rate * unit - gamma) < self.tolerance
        compared = ops.logical_and(measured, ops.logical_and(k > 1, rate > 0))
        return ops.logical_and(compared, near), rate

    def switched(self, variables: list[Any]) -> list[int | None]:
        """Return the step, from 1, after which each weight followed SGD, or None.

        Args:
            variables: trainable weights of the model.
        """
        steps = [int(self._switches[variable_index(self, one)].numpy()) for one in variables]
        return [step or None for step in steps]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "tolerance": self.tolerance}


def _read(variable: Any) -> Any:
    """Return the current value; Keras' own conversion would refer to the variable."""
    own = variable.value if isinstance(variable, keras.Variable) else variable
    return tf.convert_to_tensor(own)


def _dot(one: Any, other: Any) -> Any:
    """Return the inner product of two tensors as float64."""
    return keras.ops.cast(keras.ops.sum(one * other), "float64")
