"""Optimizers and learning-rate schedules by name.

optimizer(name, rate) := Keras optimizer whose rate is a number or a Keras schedule
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from kpipe.errors import TrainingError, nearest

__all__ = ["optimizer", "optimizer_names"]

_OPTIMIZERS: Mapping[str, tuple[Callable[..., keras.optimizers.Optimizer], dict[str, Any]]] = {
    "adadelta": (keras.optimizers.Adadelta, {}),
    "adam": (keras.optimizers.Adam, {}),
    "adamw": (keras.optimizers.AdamW, {}),
    "rmsprop": (keras.optimizers.RMSprop, {}),
    "sgd": (keras.optimizers.SGD, {"momentum": 0.9, "nesterov": True}),
}
_SCHEDULES = ("constant", "cosine")


def optimizer_names() -> list[str]:
    """The names that `optimizer` knows, sorted."""
    return sorted(_OPTIMIZERS)


def optimizer(
    name: str,
    learning_rate: float,
    *,
    schedule: str = "constant",
    steps: int | None = None,
    **options: Any,
) -> keras.optimizers.Optimizer:
    """A new Keras optimizer.

    Args:
        name: one of `optimizer_names()`; "sgd" comes with Nesterov momentum 0.9.
        learning_rate: the rate, or where a schedule starts; above 0.
        schedule: "constant", or "cosine", which falls to 0 over `steps` (Loshchilov and Hutter
            2017, arXiv 1608.03983, without restarts).
        steps: the number of updates over which a schedule runs; batches times epochs.
        **options: passed to the Keras optimizer, above the defaults.

    Raises:
        TrainingError: an unknown name or schedule, or numbers that make no sense.
    """
    if name not in _OPTIMIZERS:
        raise TrainingError(
            f"no optimizer is called {name!r}", fix=nearest(name, _OPTIMIZERS), received=repr(name)
        )
    if schedule not in _SCHEDULES:
        raise TrainingError(
            f"no learning-rate schedule is called {schedule!r}", fix=nearest(schedule, _SCHEDULES)
        )
    if not learning_rate > 0:
        raise TrainingError(
            "a learning rate must be above 0", expected="> 0", received=str(learning_rate)
        )
    rate: Any = learning_rate
    if schedule == "cosine":
        if steps is None or steps < 1:
            raise TrainingError(
                "a cosine schedule needs its length",
                expected="steps >= 1",
                received=f"steps={steps}",
                fix="give steps=epochs * steps_per_epoch",
            )
        rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    make, defaults = _OPTIMIZERS[name]
    return make(learning_rate=rate, **{**defaults, **options})
