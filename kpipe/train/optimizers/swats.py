"""The switch from Adam to SGD, at a step and a learning rate estimated from Adam's steps.

    at step k, with Adam's step p and gradient g over all trainable weights as one vector:
    gamma   = p.p / -(p.g)                            if p.g is not 0
    average = beta2 * average + (1 - beta2) * gamma
    rate    = average / (1 - beta2 ** k)
    switch when k > 1 and |rate - gamma| < tolerance, to
        v = beta1 * v + g;   weights -= (1 - beta1) * rate * v

Algorithm 1 of Keskar and Socher 2017 (arXiv 1712.07628). In Keras' terms the last line is
SGD((1 - beta1) * rate, momentum=beta1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from kpipe.errors import TrainingError
from kpipe.train.optimizers.layer_decay import learning_rate_factors
from kpipe.train.optimizers.optimizer_state import inner_optimizer
from kpipe.train.optimizers.switch_triggers import PerStepTrigger, StepObserver
from kpipe.train.stateful_callback import State
from kpipe.wrong_kinds import names_wrong_kinds_of_fields

__all__ = ["SWATS"]

_UPDATE = "_backend_update_step"


@names_wrong_kinds_of_fields
@dataclass(frozen=True)
class SWATS(PerStepTrigger):
    """Switch from Adam to SGD when the estimate of SGD's learning rate has converged.

    The estimate, gamma, has converged when it agrees with its running average. SWATS works with
    `keras.optimizers.Adam` and its subclasses, such as AdamW. It measures Adam's step after
    clipping and gradient accumulation, without decoupled weight decay; with `LayerDecay`, it scales
    gradients as the steps are scaled. The switch happens between two steps within an epoch. With
    `steps_per_execution=n` it happens after the n steps in which the estimate converged, at the
    learning rate of the step at which it did. Unlike in the paper, the rate must be positive.

    The history gains "swats_rate", the running average, and "swats_gap", the smallest
    |rate - gamma| so far: any larger tolerance would have switched.

    Args:
        tolerance: the bound on |rate - gamma|, in the unit of a learning rate, above 0. The paper
            uses 1e-9; reimplementations needed 1e-5 for a ResNet to switch at all.

    Source:
        Keskar and Socher 2017, arXiv 1712.07628, algorithm 1.

    Example:
        >>> import keras, numpy as np
        >>> from kpipe.train import SWATS, SwitchOptimizer
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile("adam", "mse")
        >>> switch = SwitchOptimizer("sgd", SWATS(tolerance=0.1))
        >>> x, y = np.ones((8, 4)), np.ones((8, 1))
        >>> history = model.fit(x, y, batch_size=2, callbacks=[switch], verbose=0)
        >>> model.optimizer.name, switch.switched_step
        ('sgd', 2)
    """

    tolerance: float = 1e-9

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < math.inf:
            raise TrainingError(
                "the tolerance of SWATS is out of range", expected="> 0", received=str(self)
            )

    def initial_state(self) -> State:
        return {"steps": 0, "average": 0.0, "gap": None, "due": False, "betas": None}

    def update(self, state: State, logs: Mapping[str, float]) -> State:
        return state

    def should_switch(self, state: State, epoch: int) -> bool:
        return bool(state["due"])

    def observe(self, model: keras.Model, state: State) -> StepObserver:
        replicas = model.distribute_strategy.num_replicas_in_sync
        if replicas > 1:
            raise TrainingError(
                "SWATS needs the gradients of all replicas, and each replica has only its own",
                expected="1 replica",
                received=str(replicas),
                fix="use AtEpoch or OnPlateau",
            )
        adam = inner_optimizer(model.optimizer)
        if not isinstance(adam, keras.optimizers.Adam):
            raise TrainingError(
                "SWATS switches from Adam to SGD",
                expected="a model compiled with Adam or AdamW",
                received=type(adam).__name__,
                fix="use AtEpoch or OnPlateau",
            )
        return _Projection(adam, state, self.tolerance)

    def optimizer_arguments(self, state: State) -> dict[str, Any]:
        beta_1 = state["betas"][0]
        rate = (1 - beta_1) * _rate(state)
        return {"learning_rate": rate, "momentum": beta_1, "nesterov": False}

    def logs(self, state: State) -> dict[str, float]:
        gap = math.inf if state["gap"] is None else state["gap"]
        return {"swats_rate": _rate(state), "swats_gap": gap}

    def no_switch_message(self, state: State) -> str:
        gap = "no step was measured" if state["gap"] is None else f"{state['gap']:.3g}"
        return (
            f"SWATS did not switch within {state['steps']} steps: the smallest gap between the "
            f"estimated learning rate and its average was {gap}, the tolerance is "
            f"{self.tolerance:g}"
        )


def _rate(state: State) -> float:
    if state["steps"] == 0:
        return 0.0
    return float(state["average"] / (1 - state["betas"][1] ** state["steps"]))


class _Projection(StepObserver):
    """Compute the running average within the train function, without copying gradients out."""

    def __init__(self, adam: Any, state: State, tolerance: float) -> None:
        self._adam = adam
        self._tolerance = tolerance
        gap = math.inf if state["gap"] is None else state["gap"]
        self._steps = _scalar(state["steps"], "int64")
        self._average = _scalar(state["average"], "float64")
        self._gap = _scalar(gap, "float64")
        self._converged = _scalar(state["due"], "bool")
        # Adam's step on clipped and accumulated gradients, after weight decay. An interrupted fit
        # may have left its replacement here.
        vars(adam).pop(_UPDATE, None)
        self._update = getattr(adam, _UPDATE)
        object.__setattr__(adam, _UPDATE, self._observe)

    def state(self) -> State:
        gap = float(self._gap.numpy())
        return {
            "steps": int(self._steps.numpy()),
            "average": float(self._average.numpy()),
            "gap": gap if math.isfinite(gap) else None,
            "due": self.should_switch(),
            "betas": [float(self._adam.beta_1), float(self._adam.beta_2)],
        }

    def should_switch(self) -> bool:
        return bool(self._converged.numpy())

    def stop(self) -> None:
        vars(self._adam).pop(_UPDATE, None)

    def _observe(self, gradients: Sequence[Any], variables: Sequence[Any], rate: Any) -> None:
        # A tensor copies the current value; Keras' own conversion would reference the variable.
        before = [tf.convert_to_tensor(v.value) for v in variables]
        self._update(gradients, variables, rate)
        steps = [v.value - b for v, b in zip(variables, before, strict=True)]
        # LayerDecay will scale SGD's steps as it scaled these: the estimate leaves its factors out.
        factors = learning_rate_factors(self._adam, variables)
        scaled = [f * tf.convert_to_tensor(g) for f, g in zip(factors, gradients, strict=True)]
        self._update_estimate(_dot(steps, steps), _dot(steps, scaled))

    def _update_estimate(self, step_step: Any, step_gradient: Any) -> None:
        ops = keras.ops
        beta_2 = self._adam.beta_2
        running = ops.logical_not(self._converged)
        measured = ops.logical_and(running, ops.not_equal(step_gradient, 0.0))
        # Avoid a division by 0 where the result is not used.
        gamma = step_step / ops.where(measured, -step_gradient, 1.0)
        average = beta_2 * self._average + (1 - beta_2) * gamma
        steps = self._steps + ops.cast(running, "int64")
        rate = average / (1 - ops.power(ops.cast(beta_2, "float64"), ops.cast(steps, "float64")))
        gap = ops.abs(rate - gamma)
        # At the first step the average equals gamma.
        compared = ops.logical_and(measured, ops.logical_and(steps > 1, rate > 0))
        self._steps.assign(steps)
        self._average.assign(ops.where(measured, average, self._average))
        self._gap.assign(ops.where(compared, ops.minimum(self._gap, gap), self._gap))
        near = ops.logical_and(compared, gap < self._tolerance)
        self._converged.assign(ops.logical_or(self._converged, near))


def _scalar(value: float, dtype: str) -> keras.Variable:
    return keras.Variable(value, shape=(), dtype=dtype, trainable=False)


def _dot(one: Sequence[Any], other: Sequence[Any]) -> Any:
    """Return the inner product of two lists of tensors as float64, since rates differ by 1e-9."""
    ops = keras.ops
    parts = [
        # The gradient of an embedding is sparse until it is converted.
        ops.sum(ops.cast(a, "float32") * ops.cast(tf.convert_to_tensor(b), "float32"))
        for a, b in zip(one, other, strict=True)
    ]
    return sum(ops.cast(part, "float64") for part in parts)
