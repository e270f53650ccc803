"""Optimizers by name, or copied from a Keras optimizer.

optimizer(kind, learning_rate) := a new Keras optimizer with a number or a Keras schedule
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import keras

from kpipe.errors import TrainingError, nearest
from kpipe.keras_internals import copy_decay_exclusions, given_learning_rate
from kpipe.train.optimizers.layerwise_swats import LayerwiseSWATS
from kpipe.train.optimizers.schedules import Constant, ReduceOnPlateau, Schedule, as_schedule
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["OptimizerLike", "optimizer", "optimizer_names"]

OptimizerLike: TypeAlias = str | keras.optimizers.Optimizer | Mapping[str, Any]

_OPTIMIZERS: Mapping[str, tuple[Callable[..., keras.optimizers.Optimizer], dict[str, Any]]] = {
    "adadelta": (keras.optimizers.Adadelta, {}),
    "adam": (keras.optimizers.Adam, {}),
    "adamw": (keras.optimizers.AdamW, {}),
    "rmsprop": (keras.optimizers.RMSprop, {}),
    "sgd": (keras.optimizers.SGD, {"momentum": 0.9, "nesterov": True}),
    "swats": (LayerwiseSWATS, {}),
}


def optimizer_names() -> list[str]:
    """Return the names that `optimizer` accepts, sorted.

    Example:
        >>> from kpipe.train import optimizer_names
        >>> optimizer_names()
        ['adadelta', 'adam', 'adamw', 'rmsprop', 'sgd', 'swats']
    """
    return sorted(_OPTIMIZERS)


@names_wrong_kinds
def optimizer(
    kind: OptimizerLike,
    learning_rate: float | None = None,
    *,
    schedule: str | Schedule = "constant",
    steps: int | None = None,
    **options: Any,
) -> keras.optimizers.Optimizer:
    """Create a Keras optimizer.

    Args:
        kind: one of `optimizer_names()` ("sgd" has Nesterov momentum 0.9, "swats" is
            `LayerwiseSWATS`), a Keras optimizer, or its configuration from
            `keras.optimizers.serialize`. The configuration and exclusions from weight decay are
            copied, the state is not.
        learning_rate: the learning rate, or the peak of its schedule, above 0. None for that of
            `kind`; for a name, Keras' default.
        schedule: a `kpipe.train.Schedule`, or the name of one with its defaults.
        steps: the number of updates that the schedule covers: batches times epochs.
        **options: arguments of the Keras class, such as `weight_decay`, `clipnorm` or `use_ema`;
            they replace those of `kind`.

    Returns:
        An optimizer that is not built.

    Raises:
        TrainingError: an unknown name or schedule, numbers out of range, or options that the
            optimizer does not have.

    Example:
        >>> from kpipe.train import optimizer
        >>> sgd = optimizer("sgd", 0.1, clipnorm=1.0)
        >>> float(sgd.learning_rate), sgd.momentum, sgd.clipnorm
        (0.1, 0.9, 1.0)
    """
    rule = as_schedule(schedule)
    own = _config(kind)
    if learning_rate is not None and not learning_rate > 0:
        raise TrainingError(
            "the learning rate is out of range", expected="> 0", received=str(learning_rate)
        )
    is_constant = isinstance(rule, Constant | ReduceOnPlateau)
    if learning_rate is None and is_constant:
        return _create(kind, {**own, **options})
    if not is_constant and (steps is None or steps < 1):
        raise TrainingError(
            f"the schedule {rule} needs its length",
            expected="steps >= 1",
            received=f"steps={steps}",
            fix="pass steps=epochs * steps_per_epoch",
        )
    peak = _default_learning_rate(kind) if learning_rate is None else learning_rate
    scheduled = rule.learning_rate(float(peak), steps or 1)
    return _create(kind, {**own, **options, "learning_rate": scheduled})


def _config(kind: OptimizerLike) -> dict[str, Any]:
    if isinstance(kind, str):
        if kind not in _OPTIMIZERS:
            raise TrainingError(
                f"there is no optimizer {kind!r}",
                fix=nearest(kind, _OPTIMIZERS),
                received=repr(kind),
            )
        # Without a name, Keras would number the optimizers of a process.
        return {"name": kind, **_OPTIMIZERS[kind][1]}
    if isinstance(kind, Mapping):
        kind = _deserialized(kind)
    if isinstance(kind, keras.optimizers.LossScaleOptimizer):
        raise TrainingError(
            "loss scaling is added by the model, not by its optimizer",
            expected=f"the inner {type(kind.inner_optimizer).__name__}",
            received="LossScaleOptimizer",
            fix="compile a mixed_float16 model with the inner optimizer",
        )
    config = kind.get_config()
    if callable(given_learning_rate(kind)):
        config["learning_rate"] = given_learning_rate(kind)  # a schedule or a function
    return config


def _deserialized(config: Mapping[str, Any]) -> keras.optimizers.Optimizer:
    try:
        return keras.optimizers.deserialize(dict(config))
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise TrainingError(
            "an optimizer cannot be created from its configuration",
            expected="the output of keras.optimizers.serialize, with classes registered with Keras",
            received=f"{dict(config)!r:.200}",
            fix="decorate your own classes with keras.saving.register_keras_serializable, and "
            f"define their get_config ({error})",
        ) from error


def _create(kind: OptimizerLike, config: dict[str, Any]) -> keras.optimizers.Optimizer:
    if isinstance(kind, Mapping):
        kind = _deserialized(kind)
    try:
        if isinstance(kind, str):
            return _OPTIMIZERS[kind][0](**config)
        created = type(kind).from_config(config)
    except (TypeError, ValueError) as error:
        raise TrainingError(
            "an optimizer does not accept these arguments",
            expected="the arguments of its Keras class",
            received=", ".join(f"{name}={value!r}" for name, value in config.items()),
            fix=str(error),
        ) from error
    copy_decay_exclusions(kind, created)
    return created


def _default_learning_rate(kind: OptimizerLike) -> float:
    created = _create(kind, _config(kind))
    if callable(given_learning_rate(created)):
        raise TrainingError(
            "an optimizer that already has a schedule cannot follow another one",
            received=type(given_learning_rate(created)).__name__,
            fix='pass the learning_rate, or schedule="constant"',
        )
    return float(created.learning_rate)
