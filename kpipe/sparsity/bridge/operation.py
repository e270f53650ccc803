"""Keras 3 operations inside tf_keras models, where tf_keras has no equivalent layer."""

from __future__ import annotations

from typing import Any
from weakref import WeakValueDictionary

import keras
import tf_keras

from kpipe.sparsity.tf_keras_internals import KerasTensor

__all__ = ["KerasOperation", "Slot"]

_ORIGINALS: WeakValueDictionary[int, KerasOperation] = WeakValueDictionary()


class KerasOperation(tf_keras.layers.Layer):
    """A Keras 3 operation without weights, called by tf_keras on its own tensors.

    Args:
        operation: a raw Keras 3 operation, or a layer without weights.
        arguments: (args, kwargs) of the call, with a `Slot` in place of each tensor.
    """

    def __init__(self, operation: Any, arguments: Any, **settings: Any) -> None:
        super().__init__(autocast=False, **settings)
        self.operation = operation
        self.arguments = _Untracked(arguments)
        _ORIGINALS[id(self)] = self

    def get_config(self) -> dict[str, Any]:
        """Return where to find the original, enough for the copies that TFMOT makes."""
        return {**super().get_config(), "original": id(self)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> KerasOperation:
        """Return a copy that calls the same operation."""
        original = _ORIGINALS[config.pop("original")]
        copy = cls(original.operation, None, **config)
        copy.arguments = original.arguments
        return copy

    @classmethod
    def called(cls, operation: Any, args: Any, kwargs: Any, name: str) -> Any:
        """Call an operation on arguments that hold symbolic tensors of tf_keras.

        Args:
            operation: of Keras 3.
            args: positional arguments.
            kwargs: keyword arguments.
            name: of the layer that calls it, unique in its model.
        """
        given = (tuple(args), dict(kwargs))
        tensors = [part for part in keras.tree.flatten(given) if isinstance(part, KerasTensor)]
        arguments = keras.tree.map_structure(
            lambda part: Slot() if isinstance(part, KerasTensor) else part, given
        )
        return cls(operation, arguments, name=name)(tensors)

    def call(self, tensors: list[Any]) -> Any:
        """Call the operation on `tensors`, which fill the slots in order."""
        args, kwargs = self.arguments.filled(tensors)
        return self.operation(*args, **kwargs)


class Slot:
    """Placeholder for a tensor among the arguments of a call."""


class _Untracked:
    """Arguments hidden from tf_keras, which would wrap their lists and dictionaries."""

    def __init__(self, arguments: Any) -> None:
        self._arguments = arguments

    def filled(self, tensors: Any) -> Any:
        waiting = iter(tensors if isinstance(tensors, (list, tuple)) else [tensors])
        return keras.tree.map_structure(
            lambda part: next(waiting) if isinstance(part, Slot) else part, self._arguments
        )
