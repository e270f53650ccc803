"""Training that leaves zeros zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

__all__ = ["KeepZeros"]


class KeepZeros(keras.callbacks.Callback):
    """Keeps the zeros of a magnitude-pruned model through a Keras 3 `fit`.

    The optimizer would move them at once. Each kernel that holds zeros when the fit begins gets a
    constraint, after its own, that sets them back with every update, inside the compiled step; it
    is gone when the fit ends.

    >>> model.fit(data, callbacks=[KeepZeros()])  # doctest: +SKIP
    """

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._before = []
        for variable in self.model.trainable_variables:
            if "kernel" not in variable.name:
                continue
            mask = ops.cast(ops.not_equal(variable.value, 0), variable.dtype)
            if bool(ops.all(mask)):
                continue
            self._before.append((variable, variable.constraint))
            variable.constraint = _masked(mask, variable.constraint)
        self.model.make_train_function(force=True)  # a step traced before knows nothing of them

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        for variable, constraint in self._before:
            variable.constraint = constraint
        self.model.make_train_function(force=True)


def _masked(mask: Any, own: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    def constraint(value: Any) -> Any:
        return mask * (value if own is None else own(value))

    return constraint
