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
    is gone when the fit ends, and with the next fit where it was interrupted.

    >>> model.fit(data, callbacks=[KeepZeros()])  # doctest: +SKIP

    Args:
        model: whose zeros are kept, where it is a part of what is fitted, such as the student of a
            `kpipe.train.Distiller`; None for all that is fitted.
    """

    def __init__(self, model: keras.Model | None = None) -> None:
        super().__init__()
        self._part = model

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._masked = []
        kept = self.model if self._part is None else self._part
        for variable in kept.trainable_variables:
            own = variable.constraint
            if isinstance(own, _Masked):  # left by a fit that was interrupted
                own = variable.constraint = own.own
            mask = ops.cast(ops.not_equal(variable.value, 0), variable.dtype)
            if "kernel" in variable.name and not bool(ops.all(mask)):
                variable.constraint = _Masked(mask, own)
                self._masked.append(variable)
        self.model.make_train_function(force=True)  # a step traced before knows nothing of them

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        for variable in self._masked:
            # Averages of the weights, written over them at the end, know of no constraint.
            variable.assign(variable.constraint.mask * variable.value)
            variable.constraint = variable.constraint.own
        self.model.make_train_function(force=True)


class _Masked:
    def __init__(self, mask: Any, own: Callable[[Any], Any] | None) -> None:
        self.mask, self.own = mask, own

    def __call__(self, value: Any) -> Any:
        return self.mask * (value if self.own is None else self.own(value))
