"""Further training of a magnitude-pruned model that keeps its zeros."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kpipe.wrong_kinds import names_wrong_kinds_of_fields

__all__ = ["KeepZeros"]


@names_wrong_kinds_of_fields
class KeepZeros(keras.callbacks.Callback):
    """Keep the zeros of a magnitude-pruned model during a Keras 3 `fit`.

    Without it, the optimizer moves them at once. Each kernel with zeros at the start gets a
    constraint that restores them after every update, inside the compiled step and after the
    kernel's previous constraint. It is removed when the fit ends; after an interrupted fit, by
    the next one.

    Args:
        model: whose zeros to keep, if it is part of the fitted model, such as the student of a
            `kpipe.train.Distiller`; None for the fitted model.

    Example:
        >>> import keras, numpy as np
        >>> from kpipe.sparsity import KeepZeros, measure_sparsity
        >>> dense = keras.layers.Dense(2, kernel_initializer="identity", name="top")
        >>> model = keras.Sequential([keras.Input((2,)), dense])
        >>> model.compile("sgd", "mse")
        >>> x, y = np.ones((8, 2)), np.zeros((8, 2))
        >>> history = model.fit(x, y, callbacks=[KeepZeros()], verbose=0)
        >>> measure_sparsity(model)
        {'top': 0.5}
    """

    def __init__(self, model: keras.Model | None = None) -> None:
        super().__init__()
        self._part = model

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._masked = []
        model = self.model if self._part is None else self._part
        for variable in model.trainable_variables:
            if isinstance(variable.constraint, _Mask):  # left by an interrupted fit
                variable.constraint = variable.constraint.previous
            mask = ops.cast(ops.not_equal(variable.value, 0), variable.dtype)
            if "kernel" in variable.name and not bool(ops.all(mask)):
                variable.constraint = _Mask(mask, variable.constraint)
                self._masked.append(variable)
        self.model.make_train_function(force=True)  # traces the constraints

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        for variable in self._masked:
            # A moving average of the weights, written at the end, bypasses the constraint.
            variable.assign(variable.constraint.mask * variable.value)
            variable.constraint = variable.constraint.previous
        self.model.make_train_function(force=True)


class _Mask:
    """Sets masked weights to zero, after the previous constraint of the variable."""

    def __init__(self, mask: Any, previous: Callable[[Any], Any] | None) -> None:
        self.mask, self.previous = mask, previous

    def __call__(self, value: Any) -> Any:
        return self.mask * (value if self.previous is None else self.previous(value))
