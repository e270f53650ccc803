"""What of an optimizer goes on in the one that takes its place.

    of the old optimizer     | in the new one
    weight_decay             | the same number, and the same weights excluded from it. Keras
                             | multiplies it by the rate, so its effect follows the new rate
    clipnorm, clipvalue,     | the same
    global_clipnorm          |
    use_ema                  | the same momentum and overwriting; the averages go on. Keras would
                             | start them anew in the new optimizer's first iteration
    gradient accumulation    | the same number of batches; a cycle that is under way is finished
    loss_scale_factor        | the same
    LossScaleOptimizer       | wraps the new one as well, at the scale that was reached
    slots, iterations, rate  | not carried over: the new optimizer's own, from 0
    momentum of one-cycle,   | not carried over: what the new optimizer declares
    schedules                |

What the new optimizer declares itself (a value other than Keras' default) it keeps. Refused by
name: several optimizers in one model, ScheduleFreeAdamW, whose weights are not its result, and
another number of batches in the middle of an accumulation.

Two limits are Keras' own: a file keeps neither exclusions from weight decay, nor that averages go
on where it was written within the new optimizer's first iteration.
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

__all__ = ["carry_settings", "carry_state", "keep_averaging", "refuse_unable", "unwrapped"]

_CLIPPING = ("clipnorm", "clipvalue", "global_clipnorm")
_AVERAGING = ("use_ema", "ema_momentum", "ema_overwrite_frequency")


def unwrapped(optimizer: Any) -> Any:
    """The optimizer that makes the steps, without its loss scaling."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer.inner_optimizer
    return optimizer


def refuse_unable(optimizer: Any) -> None:
    """Raises a TrainingError for an optimizer that can neither follow nor be followed."""
    kinds = (keras.optimizers.MultiOptimizer, keras.optimizers.ScheduleFreeAdamW)
    if isinstance(unwrapped(optimizer), kinds):
        raise TrainingError(
            f"there is no switching from or to {type(unwrapped(optimizer)).__name__}",
            expected="one optimizer whose weights are the model's",
            fix="train in two fits, and compile between them",
        )


def carry_settings(old: Any, new: Any, variables: Sequence[keras.Variable]) -> Any:
    """Gives an unbuilt optimizer the settings of the old one; wraps it where that was wrapped.

    Args:
        old: the model's optimizer.
        new: not built.
        variables: those that train.

    Returns:
        The optimizer to build and to use.
    """
    source, target = unwrapped(old), unwrapped(new)
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


def carry_state(old: Any, new: Any, variables: Sequence[keras.Variable]) -> bool:
    """Gives a built optimizer what the old one has gathered.

    Args:
        old: the model's optimizer, built.
        new: built on `variables`, without a step.
        variables: those that train.

    Returns:
        Whether averages go on, so that the new optimizer needs `keep_averaging`.

    Raises:
        TrainingError: gradients are accumulated, and the new optimizer counts otherwise.
    """
    source, target = unwrapped(old), unwrapped(new)
    if old is not source and new is not target:
        new.dynamic_scale.assign(old.dynamic_scale)
        new.step_counter.assign(old.step_counter)
    _carry_gradients(source, target, variables)
    if not (source.use_ema and target.use_ema and _count(source.iterations) > 0):
        return False
    for average, value in _beside(target, source, moving_averages, variables):
        average.assign(value)
    return True


def keep_averaging(optimizer: Any) -> None:
    """Lets averages go on in an optimizer's first iteration, where Keras starts them anew."""
    target = unwrapped(optimizer)

    def update(variables: Sequence[Any]) -> None:
        for variable, average in zip(variables, moving_averages(target), strict=True):
            # Keras' arithmetic to the last bit: a resumed training may have it from Keras.
            momentum = keras.ops.multiply(keras.ops.cast(True, variable.dtype), target.ema_momentum)
            average.assign(momentum * average + (1 - momentum) * variable)

    object.__setattr__(target, UPDATE_MOVING_AVERAGES, update)


def _carry_gradients(source: Any, target: Any, variables: Sequence[keras.Variable]) -> None:
    batches = source.gradient_accumulation_steps
    begun = _count(step_counter(source)) % batches if batches else 0
    if not begun:
        return
    if target.gradient_accumulation_steps != batches:
        raise TrainingError(
            f"{begun} batches of gradients are accumulated, and would be lost in the switch",
            expected=f"gradient_accumulation_steps={batches} in the new optimizer too",
            received=str(target.gradient_accumulation_steps),
            fix="or let the batches of an epoch be a multiple of it",
        )
    # `iterations` counts finished cycles, so it is 0 all the same.
    step_counter(target).assign(begun)
    for accumulator, value in _beside(target, source, accumulated_gradients, variables):
        accumulator.assign(value)


def _count(counter: Any) -> int:
    return int(keras.ops.convert_to_numpy(counter))  # replicas share it


def _beside(
    target: Any, source: Any, slot: Callable[[Any], Any], variables: Sequence[keras.Variable]
) -> list[tuple[Any, Any]]:
    """The slots of both optimizers for each variable."""
    to, of = slot(target), slot(source)
    return [(to[variable_index(target, v)], of[variable_index(source, v)]) for v in variables]
