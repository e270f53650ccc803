"""Settings and state that a new optimizer inherits from the one it replaces.

    old optimizer            | new optimizer
    weight_decay             | the same value, and the same weights excluded. Keras multiplies it by
                             | the learning rate, so its effect follows the new learning rate
    clipnorm, clipvalue,     | the same
    global_clipnorm          |
    use_ema                  | the same momentum and overwrite frequency; the averages continue.
                             | Keras would restart them in the new optimizer's first iteration
    gradient accumulation    | the same number of batches; a cycle in progress is completed
    loss_scale_factor        | the same
    LossScaleOptimizer       | wraps the new optimizer too, at the current scale
    slots, iterations,       | not inherited: the new optimizer starts from 0
    learning rate, schedule  |

A setting of the new optimizer that differs from Keras' default takes precedence. Not supported:
several optimizers in one model; ScheduleFreeAdamW, which evaluates with other weights than it
trains; and a change of the number of batches in the middle of an accumulation cycle.

Two limits come from Keras: a saved model does not record exclusions from weight decay, nor, if it
was saved within the new optimizer's first iteration, that the averages continue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from kpipe.errors import TrainingError
from kpipe.keras_internals import (
    UPDATE_MOVING_AVERAGES,
    accumulated_gradients,
    decays_weight,
    moving_averages,
    step_counter,
    variable_index,
)

__all__ = [
    "continue_averaging",
    "copy_settings",
    "copy_state",
    "inner_optimizer",
    "refuse_unsupported",
]

_CLIPPING = ("clipnorm", "clipvalue", "global_clipnorm")
_AVERAGING = ("use_ema", "ema_momentum", "ema_overwrite_frequency")


def inner_optimizer(optimizer: Any) -> Any:
    """Return the optimizer that makes the steps, without its loss scaling."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer.inner_optimizer
    return optimizer


def refuse_unsupported(optimizer: Any) -> None:
    """Raise a TrainingError for an optimizer that cannot replace another or be replaced."""
    kinds = (keras.optimizers.MultiOptimizer, keras.optimizers.ScheduleFreeAdamW)
    if isinstance(inner_optimizer(optimizer), kinds):
        raise TrainingError(
            f"cannot switch from or to {type(inner_optimizer(optimizer)).__name__}",
            expected="one optimizer that evaluates with the weights it trains",
            fix="train in two fits, and compile between them",
        )


def copy_settings(old: Any, new: Any, variables: Sequence[keras.Variable]) -> Any:
    """Copy settings to the new optimizer, and wrap it in loss scaling if the old one was.

    Args:
        old: the model's optimizer.
        new: its replacement, not built.
        variables: the trainable variables.

    Returns:
        The optimizer to build and use.
    """
    source, target = inner_optimizer(old), inner_optimizer(new)
    if target.weight_decay is None and source.weight_decay is not None:
        target.weight_decay = source.weight_decay
        excluded = [v for v in variables if not decays_weight(source, v.value)]
        if excluded:
            target.exclude_from_weight_decay(var_list=excluded)
    if all(getattr(target, name) is None for name in _CLIPPING):
        for name in _CLIPPING:
            setattr(target, name, getattr(source, name))
    if source.use_ema and not target.use_ema:
        for name in _AVERAGING:
            setattr(target, name, getattr(source, name))
    if target.gradient_accumulation_steps is None:
        target.gradient_accumulation_steps = source.gradient_accumulation_steps
    if target is new and target.loss_scale_factor is None:
        target.loss_scale_factor = source.loss_scale_factor
    if old is not source and new is target:
        return keras.optimizers.LossScaleOptimizer(
            new, initial_scale=old.initial_scale, dynamic_growth_steps=old.dynamic_growth_steps
        )
    return new


def copy_state(old: Any, new: Any, variables: Sequence[keras.Variable]) -> bool:
    """Copy averages, accumulated gradients and the loss scale to the new optimizer.

    Args:
        old: the model's optimizer, built.
        new: its replacement, built on `variables`, before its first step.
        variables: the trainable variables.

    Returns:
        Whether averages continue, so that the new optimizer needs `continue_averaging`.

    Raises:
        TrainingError: gradients are accumulated over another number of batches.
    """
    source, target = inner_optimizer(old), inner_optimizer(new)
    if old is not source and new is not target:
        new.dynamic_scale.assign(old.dynamic_scale)
        new.step_counter.assign(old.step_counter)
    _copy_gradients(source, target, variables)
    begun = _count(source.iterations) > 0 or UPDATE_MOVING_AVERAGES in vars(source)
    if not (source.use_ema and target.use_ema and begun):
        return False
    for average, value in _paired_slots(target, source, moving_averages, variables):
        average.assign(value)
    return True


def continue_averaging(optimizer: Any) -> None:
    """Continue the averages in an optimizer's first iteration, in which Keras restarts them."""
    target = inner_optimizer(optimizer)

    def update(variables: Sequence[Any]) -> None:
        for variable, average in zip(variables, moving_averages(target), strict=True):
            # Bit for bit Keras' arithmetic, which a resumed training run may use instead.
            momentum = keras.ops.multiply(keras.ops.cast(True, variable.dtype), target.ema_momentum)
            average.assign(momentum * average + (1 - momentum) * variable)

    object.__setattr__(target, UPDATE_MOVING_AVERAGES, update)


def _copy_gradients(source: Any, target: Any, variables: Sequence[keras.Variable]) -> None:
    batches = source.gradient_accumulation_steps
    begun = _count(step_counter(source)) % batches if batches else 0
    if not begun:
        return
    if target.gradient_accumulation_steps != batches:
        raise TrainingError(
            f"{begun} batches of gradients are accumulated, and the switch would lose them",
            expected=f"gradient_accumulation_steps={batches} in the new optimizer too",
            received=str(target.gradient_accumulation_steps),
            fix="use the same number, or one that divides the batches of an epoch",
        )
    # `iterations` counts finished cycles, so it is still 0.
    step_counter(target).assign(begun)
    for accumulator, value in _paired_slots(target, source, accumulated_gradients, variables):
        accumulator.assign(value)


def _count(counter: Any) -> int:
    return int(keras.ops.convert_to_numpy(counter))  # shared by all replicas


def _paired_slots(
    target: Any, source: Any, slot: Callable[[Any], Any], variables: Sequence[keras.Variable]
) -> list[tuple[Any, Any]]:
    """Return the slots of both optimizers for each variable."""
    to, of = slot(target), slot(source)
    return [(to[variable_index(target, v)], of[variable_index(source, v)]) for v in variables]
