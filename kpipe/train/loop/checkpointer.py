"""A callback that writes a checkpoint after each epoch and resumes from the newest one.

after an epoch := update history and best epoch -> write checkpoint -> remove older ones
record         := identity    must be the same when the training run resumes
                  averages    (model variable, optimizer variable that averages it), ...
                  callbacks   the state of each stateful callback
                  history, best_epoch, stopped
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kpipe.errors import TrainingError
from kpipe.keras_internals import moving_averages
from kpipe.resume_identity import refuse_other
from kpipe.train.loop import checkpoint
from kpipe.train.loop.checkpoint import Checkpoint
from kpipe.train.optimizers.optimizer_state import inner_optimizer
from kpipe.train.stateful_callback import StatefulCallback

__all__ = ["Checkpointer"]

# The state of Keras' callbacks, which Keras resets at the start of each fit.
_KERAS_COUNTERS: Mapping[type, tuple[str, ...]] = {
    keras.callbacks.EarlyStopping: ("wait", "best", "best_epoch", "stopped_epoch"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "best", "cooldown_counter"),
    keras.callbacks.ModelCheckpoint: ("best",),
}


class Checkpointer(keras.callbacks.Callback):
    """Record the history, the best weights and checkpoints; must be the last callback.

    Args:
        identity: what must not change when the training run resumes.
        folder: of the checkpoints; None to hold the best weights in memory only.
        callbacks: the callbacks of the training run, whose state is stored too.
    """

    def __init__(
        self,
        identity: dict[str, str],
        folder: str | Path | None,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> None:
        super().__init__()
        self.history: dict[str, list[float]] = {}
        self.best_epoch = -1
        self.stopped = False
        self._stateful = [c for c in callbacks if _get_state(c) is not None]
        names = ", ".join(type(c).__name__ for c in self._stateful)
        self._identity = {**identity, "stateful callbacks": names}
        self.folder = Path(folder) if folder is not None else None
        self._states: list[dict[str, Any]] = []
        self._best: list[np.ndarray] | None = None

    def resume(self) -> Checkpoint | None:
        """Read the newest checkpoint and restore the history and the callbacks from it."""
        found = checkpoint.newest(self.folder) if self.folder is not None else None
        if found is not None and self.folder is not None:
            stored, asked = found.record["identity"], self._identity
            refuse_other(self.folder, stored, asked, "another training", error=TrainingError)
            self.history = found.record["history"]
            self.best_epoch = found.record["best_epoch"]
            self.stopped = found.record["stopped"]
            self._states = found.record["callbacks"]
            self._set_states()
        return found

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        # Keras' callbacks reset their counters when a fit begins; this callback is the last.
        self._set_states()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(float(value))
        losses = self.history.get("val_loss")
        if losses is None or self.best_epoch < 0 or losses[-1] < losses[self.best_epoch]:
            self.best_epoch = epoch
            if self.folder is None and losses is not None:
                self._best = _result(
                    [np.array(v.numpy()) for v in self.model.variables],
                    [np.array(v.numpy()) for v in self.model.optimizer.variables],
                    _averages(self.model),
                )
        if self.folder is not None:
            record = {
                "identity": self._identity,
                "history": self.history,
                "best_epoch": self.best_epoch,
                "stopped": bool(self.model.stop_training),
                "averages": _averages(self.model),
                "callbacks": [_get_state(callback) for callback in self._stateful],
            }
            checkpoint.write(self.folder, epoch, record, self.model)
            checkpoint.keep_only(self.folder, [epoch, self.best_epoch])

    def restore_best(self, model: keras.Model) -> None:
        """Restore the weights of the best epoch."""
        if self.folder is not None:
            best = checkpoint.read(self.folder, self.best_epoch)
            weights = _result(best.model, best.optimizer, best.record["averages"])
            checkpoint.restore(model.variables, weights, "model")
        elif self._best is not None:
            checkpoint.restore(model.variables, self._best, "model")

    def _set_states(self) -> None:
        if self._states:
            for callback, state in zip(self._stateful, self._states, strict=True):
                _set_state(callback, state)


def _averages(model: keras.Model) -> list[tuple[int, int]]:
    """Return pairs of indices: a variable of the model, and the optimizer's average of it."""
    averaging = inner_optimizer(model.optimizer)
    if not averaging.use_ema:
        return []
    of_model = {id(v): i for i, v in enumerate(model.variables)}
    of_optimizer = {id(v): i for i, v in enumerate(model.optimizer.variables)}
    averages = moving_averages(averaging)
    pairs = zip(model.trainable_variables, averages, strict=True)
    return [(of_model[id(v)], of_optimizer[id(average)]) for v, average in pairs]


def _result(
    model: Sequence[np.ndarray],
    optimizer: Sequence[np.ndarray],
    averages: Sequence[tuple[int, int]],
) -> list[np.ndarray]:
    """Return the values to leave in the model: averages instead of weights if there are any."""
    values = list(model)
    for variable, average in averages:
        values[variable] = optimizer[average]
    return values


def _get_state(callback: keras.callbacks.Callback) -> dict[str, Any] | None:
    if isinstance(callback, StatefulCallback):
        return callback.get_state()
    for kind, counters in _KERAS_COUNTERS.items():
        if isinstance(callback, kind):
            values = {name: getattr(callback, name, None) for name in counters}
            return {k: v if v is None else float(v) for k, v in values.items()}
    return None


def _set_state(callback: keras.callbacks.Callback, state: dict[str, Any]) -> None:
    if isinstance(callback, StatefulCallback):
        callback.set_state(state)
        return
    for name, value in state.items():
        setattr(callback, name, value)
