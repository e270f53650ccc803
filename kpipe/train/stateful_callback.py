"""Callbacks whose state is stored in checkpoints and restored when a training run resumes."""

from __future__ import annotations

import abc
from typing import Any, TypeAlias

import keras

__all__ = ["State", "StatefulCallback"]

State: TypeAlias = dict[str, Any]


class StatefulCallback(keras.callbacks.Callback, abc.ABC):
    """A Keras callback whose state `kpipe.train.fit` stores in checkpoints and restores.

    Example:
        >>> from kpipe.train import StatefulCallback
        >>> class CountEpochs(StatefulCallback):
        ...     count = 0
        ...     def on_epoch_end(self, epoch, logs=None):
        ...         self.count += 1
        ...     def get_state(self):
        ...         return {"count": self.count}
        ...     def set_state(self, state):
        ...         self.count = state["count"]
        >>> callback = CountEpochs()
        >>> callback.set_state({"count": 3})
        >>> callback.get_state()
        {'count': 3}
    """

    @abc.abstractmethod
    def get_state(self) -> State:
        """Return the state after the last finished epoch, in JSON's types."""

    @abc.abstractmethod
    def set_state(self, state: State) -> None:
        """Restore a state that `get_state` returned."""
