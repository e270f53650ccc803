"""From Adam to SGD at the moment, and at the rate, that Adam's own steps suggest.

    at step k, with Adam's step p and gradient g, all trained weights taken as one vector:
    gamma   = p.p / -(p.g)                            where p.g is not 0
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
from kpipe.train.argument_checks import refuse_number
from kpipe.train.optimizers.layer_decay import rate_factors
from kpipe.train.optimizers.optimizer_state import unwrapped
from kpipe.train.optimizers.switch_triggers import PerStepTrigger, State, Watch

__all__ = ["SWATS"]

_UPDATE = "_backend_update_step"


@dataclass(frozen=True)
class SWATS(PerStepTrigger):
    """When SGD's rate, as estimated from Adam's steps, agrees with its own running average.

    For `keras.optimizers.Adam` and its subclasses, AdamW among them: the step is what Adam makes
    of the gradient after clipping and accumulation, without decoupled weight decay; under
    `LayerDecay`, gradients are scaled as the steps are. The switch
    comes between two steps, inside an epoch; with `steps_per_execution=n`, which Keras runs as one,
    after the n in which it fell due, at the rate of the step at which it did. One deviation from
    the paper: a rate must be above 0.

    The history gains "swats_rate", the estimate, and "swats_gap", the smallest |rate - gamma| so
    far: a tolerance above it would have switched.

    Args:
        tolerance: of |rate - gamma|, in the unit of a learning rate, above 0. 1e-9 is the paper's;
            others needed 1e-5 for a ResNet to switch at all.
    """

    tolerance: float = 1e-9

    def __post_init__(self) -> None:
        refuse_number("the tolerance of SWATS", self.tolerance, 0)
        if self.tolerance == 0:
            raise TrainingError("SWATS needs a tolerance", expected="> 0", received=str(self))

    def initial(self) -> State:
        return {"steps": 0, "average": 0.0, "gap": None, "due": False, "betas": None}

    def seen(self, state: State, logs: Mapping[str, float]) -> State:
        return state

    def due(self, state: State, epoch: int) -> bool:
        return bool(state["due"])

    def watch(self, model: keras.Model, state: State) -> Watch:
        replicas = model.distribute_strategy.num_replicas_in_sync
        if replicas > 1:
            raise TrainingError(
                "SWATS compares steps with gradients, of which each replica has only its own",
                expected="1 replica",
                received=str(replicas),
                fix="switch by AtEpoch or OnPlateau",
            )
        adam = unwrapped(model.optimizer)
        if not isinstance(adam, keras.optimizers.Adam):
            raise TrainingError(
                "SWATS switches from Adam to SGD",
                expected="a model compiled with Adam or AdamW",
                received=type(adam).__name__,
                fix="switch by AtEpoch or OnPlateau",
            )
        return _Projection(adam, state, self.tolerance)

    def options(self, state: State) -> dict[str, Any]:
        beta_1 = state["betas"][0]
        rate = (1 - beta_1) * _rate(state)
        return {"learning_rate": rate, "momentum": beta_1, "nesterov": False}

    def logs(self, state: State) -> dict[str, float]:
        gap = math.inf if state["gap"] is None else state["gap"]
        return {"swats_rate": _rate(state), "swats_gap": gap}

    def missed(self, state: State) -> str:
        gap = "no step was measured" if state["gap"] is None else f"{state['gap']:.3g}"
        return (
            f"SWATS did not switch within {state['steps']} steps: the smallest gap between the "
            f"rate and its average was {gap}, the tolerance is {self.tolerance:g}"
        )


def _rate(state: State) -> float:
    if state["steps"] == 0:
        return 0.0
    return float(state["average"] / (1 - state["betas"][1] ** state["steps"]))


class _Projection(Watch):
    """The running average, kept by the train function itself: nothing is copied out of it."""

    def __init__(self, adam: Any, state: State, tolerance: float) -> None:
        self._adam = adam
        self._tolerance = tolerance
        gap = math.inf if state["gap"] is None else state["gap"]
        self._steps = _scalar(state["steps"], "int64")
        self._average = _scalar(state["average"], "float64")
        self._gap = _scalar(gap, "float64")
        self._due = _scalar(state["due"], "bool")
        # Where Adam's step on clipped and accumulated gradients is made, after weight decay. A fit
        # that broke off has left its own here.
        vars(adam).pop(_UPDATE, None)
        self._update = getattr(adam, _UPDATE)
        object.__setattr__(adam, _UPDATE, self._observe)

    def state(self) -> State:
        gap = float(self._gap.numpy())
        return {
            "steps": int(self._steps.numpy()),
            "average": float(self._average.numpy()),
            "gap": gap if math.isfinite(gap) else None,
            "due": self.due(),
            "betas": [float(self._adam.beta_1), float(self._adam.beta_2)],
        }

    def due(self) -> bool:
        return bool(self._due.numpy())

    def stop(self) -> None:
        vars(self._adam).pop(_UPDATE, None)

    def _observe(self, gradients: Sequence[Any], variables: Sequence[Any], rate: Any) -> None:
        # A tensor is what a variable holds now; Keras' own conversion would keep the variable.
        before = [tf.convert_to_tensor(v.value) for v in variables]
        self._update(gradients, variables, rate)
        steps = [v.value - b for v, b in zip(variables, before, strict=True)]
        # SGD's steps will be scaled as these were: its rate is the one without the scale.
        factors = rate_factors(self._adam, variables)
        scaled = [f * tf.convert_to_tensor(g) for f, g in zip(factors, gradients, strict=True)]
        self._see(_dot(steps, steps), _dot(steps, scaled))

    def _see(self, step_step: Any, step_gradient: Any) -> None:
        ops = keras.ops
        beta_2 = self._adam.beta_2
        going = ops.logical_not(self._due)
        measured = ops.logical_and(going, ops.not_equal(step_gradient, 0.0))
        # Where it counts for nothing, the divisor must not be 0 either.
        gamma = step_step / ops.where(measured, -step_gradient, 1.0)
        average = beta_2 * self._average + (1 - beta_2) * gamma
        steps = self._steps + ops.cast(going, "int64")
        rate = average / (1 - ops.power(ops.cast(beta_2, "float64"), ops.cast(steps, "float64")))
        gap = ops.abs(rate - gamma)
        # At the first step the average is gamma itself.
        compared = ops.logical_and(measured, ops.logical_and(steps > 1, rate > 0))
        self._steps.assign(steps)
        self._average.assign(ops.where(measured, average, self._average))
        self._gap.assign(ops.where(compared, ops.minimum(self._gap, gap), self._gap))
        near = ops.logical_and(compared, gap < self._tolerance)
        self._due.assign(ops.logical_or(self._due, near))


def _scalar(value: float, dtype: str) -> keras.Variable:
    return keras.Variable(value, shape=(), dtype=dtype, trainable=False)


def _dot(one: Sequence[Any], other: Sequence[Any]) -> Any:
    """The inner product of two lists of tensors, as float64; rates are compared to 1e-9."""
    ops = keras.ops
    parts = [
        # The gradient of an embedding is a list of its rows until it is converted.
        ops.sum(ops.cast(a, "float32") * ops.cast(tf.convert_to_tensor(b), "float32"))
        for a, b in zip(one, other, strict=True)
    ]
    return sum(ops.cast(part, "float64") for part in parts)
