"""Optimizers by name, or after the model of a Keras optimizer.

optimizer(kind, rate) := a new Keras optimizer whose rate is a number or a Keras schedule
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import keras

from kpipe.errors import TrainingError, nearest
from kpipe.keras_internals import copy_decay_exclusions, given_learning_rate
from kpipe.train.optimizers.schedules import Constant, Plateau, Schedule, as_schedule

__all__ = ["Kind", "optimizer", "optimizer_names"]

Kind: TypeAlias = str | keras.optimizers.Optimizer | Mapping[str, Any]

_OPTIMIZERS: Mapping[str, tuple[Callable[..., keras.optimizers.Optimizer], dict[str, Any]]] = {
    "adadelta": (keras.optimizers.Adadelta, {}),
    "adam": (keras.optimizers.Adam, {}),
    "adamw": (keras.optimizers.AdamW, {}),
    "rmsprop": (keras.optimizers.RMSprop, {}),
    "sgd": (keras.optimizers.SGD, {"momentum": 0.9, "nesterov": True}),
}


def optimizer_names() -> list[str]:
    """The names that `optimizer` knows, sorted."""
    return sorted(_OPTIMIZERS)


def optimizer(
    kind: Kind,
    learning_rate: float | None = None,
    *,
    schedule: str | Schedule = "constant",
    steps: int | None = None,
    **options: Any,
) -> keras.optimizers.Optimizer:
    """A new Keras optimizer, not built.

    Args:
        kind: one of `optimizer_names()`, where "sgd" comes with Nesterov momentum 0.9; or a Keras
            optimizer, or what `keras.optimizers.serialize` says of one: its configuration is
            copied, its exclusions from weight decay too, its state not.
        learning_rate: the rate, or the peak of its schedule, above 0; None for the own one of
            `kind`, for names Keras' default.
        schedule: a `kpipe.train.Schedule`, or the name of one with its defaults.
        steps: the number of updates over which a schedule runs; batches times epochs.
        **options: Keras' own arguments, such as `weight_decay`, `clipnorm` or `use_ema`; they
            replace those of `kind`.

    Raises:
        TrainingError: an unknown name or schedule, numbers that make no sense, or options that
            this optimizer does not have.
    """
    rule = as_schedule(schedule)
    own = _config(kind)
    if learning_rate is not None and not learning_rate > 0:
        raise TrainingError(
            "a learning rate must be above 0", expected="> 0", received=str(learning_rate)
        )
    timeless = isinstance(rule, Constant | Plateau)
    if learning_rate is None and timeless:
        return _make(kind, {**own, **options})
    if not timeless and (steps is None or steps < 1):
        raise TrainingError(
            f"a schedule needs its length: {rule}",
            expected="steps >= 1",
            received=f"steps={steps}",
            fix="give steps=epochs * steps_per_epoch",
        )
    peak = _own_rate(kind) if learning_rate is None else learning_rate
    return _make(kind, {**own, **options, "learning_rate": rule.rate(float(peak), steps or 1)})


def _config(kind: Kind) -> dict[str, Any]:
    if isinstance(kind, str):
        if kind not in _OPTIMIZERS:
            raise TrainingError(
                f"no optimizer is called {kind!r}",
                fix=nearest(kind, _OPTIMIZERS),
                received=repr(kind),
            )
        # A name of its own: Keras would count the optimizers that were made before.
        return {"name": kind, **_OPTIMIZERS[kind][1]}
    if isinstance(kind, Mapping):
        kind = _deserialized(kind)
    if not isinstance(kind, keras.optimizers.Optimizer):
        raise TrainingError(
            "this is no optimizer",
            expected="a name, a Keras optimizer, or what keras.optimizers.serialize says of one",
            received=repr(kind),
            fix=f"{kind.__name__}()" if isinstance(kind, type) else '"adam"',
        )
    if isinstance(kind, keras.optimizers.LossScaleOptimizer):
        raise TrainingError(
            "the scale of a loss is added by the model, not by its optimizer",
            expected=f"the {type(kind.inner_optimizer).__name__} inside",
            received="LossScaleOptimizer",
            fix="compile a mixed_float16 model with the optimizer itself",
        )
    config = kind.get_config()
    if callable(given_learning_rate(kind)):
        config["learning_rate"] = given_learning_rate(kind)  # a schedule, or the user's function
    return config


def _deserialized(config: Mapping[str, Any]) -> keras.optimizers.Optimizer:
    try:
        return keras.optimizers.deserialize(dict(config))
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise TrainingError(
            "an optimizer cannot be made again from its configuration",
            expected="what keras.optimizers.serialize says of one whose classes Keras knows",
            received=f"{dict(config)!r:.200}",
            fix="decorate your own classes with keras.saving.register_keras_serializable, and give "
            f"them a get_config ({error})",
        ) from error


def _make(kind: Kind, config: dict[str, Any]) -> keras.optimizers.Optimizer:
    if isinstance(kind, Mapping):
        kind = _deserialized(kind)
    try:
        if isinstance(kind, str):
            return _OPTIMIZERS[kind][0](**config)
        made = type(kind).from_config(config)
    except (TypeError, ValueError) as error:
        raise TrainingError(
            "an optimizer cannot be made like this",
            expected="the arguments of its Keras class",
            received=", ".join(f"{name}={value!r}" for name, value in config.items()),
            fix=str(error),
        ) from error
    copy_decay_exclusions(kind, made)
    return made


def _own_rate(kind: Kind) -> float:
    made = _make(kind, _config(kind))
    if callable(given_learning_rate(made)):
        raise TrainingError(
            "an optimizer with a schedule of its own cannot follow another one",
            received=type(given_learning_rate(made)).__name__,
            fix='give the learning_rate, or schedule="constant"',
        )
    return float(made.learning_rate)
