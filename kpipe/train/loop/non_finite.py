"""A training whose numbers are no numbers any more ends, with the batch that made them so.

loss of a batch, validation loss, weights after an epoch: all finite, or TrainingError
refused-batch.npz := images, labels, weights (where the data has them), names (where known)
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kpipe.errors import TrainingError
from kpipe.train.loop.checkpoint import store

__all__ = ["BatchReader", "TerminateOnNonFinite"]

_FILE = "refused-batch.npz"
_SHOWN = 8


@dataclass(frozen=True)
class BatchReader:
    """How to get at a batch of a training once more.

    Args:
        data: first epoch -> an endless dataset from that epoch on.
        batch_names: epoch, batch -> the names of its photos; None where they are not known.
        folder: where a refused batch is kept; None for nowhere.
    """

    data: Callable[[int], tf.data.Dataset]
    batch_names: Callable[[int, int], Sequence[str]] | None
    folder: Path | None

    def arrays(self, epoch: int, batch: int) -> dict[str, np.ndarray]:
        """Images, labels, and weights and names where there are some."""
        # The batch that was trained on is gone; the data gives it a second time.
        (values,) = self.data(epoch).skip(batch).take(1)
        arrays = {
            name: np.asarray(value)
            for name, value in zip(("images", "labels", "weights"), values, strict=False)
        }
        if self.batch_names is not None:
            arrays["names"] = np.array([str(name) for name in self.batch_names(epoch, batch)])
        return arrays

    def keep(self, arrays: Mapping[str, np.ndarray]) -> str:
        """Writes a batch into the folder, and says where it is."""
        if self.folder is None:
            return ""
        path = self.folder / _FILE
        try:
            store(path, arrays)
        except OSError as error:
            return f"; it could not be kept as {path}: {error}"
        return f"; it is kept as {path}"

    def forget(self) -> None:
        """Removes a batch that was refused in an earlier attempt."""
        if self.folder is not None:
            with contextlib.suppress(FileNotFoundError):
                (self.folder / _FILE).unlink()


class TerminateOnNonFinite(keras.callbacks.Callback):
    """Ends a training whose numbers are not finite, or whose data ends, before it is stored."""

    def __init__(self, batches: BatchReader, steps_per_epoch: int) -> None:
        super().__init__()
        self._batches = batches
        self._steps = steps_per_epoch

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._epoch = epoch
        self._batch = -1

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        # Keras reports the mean since the epoch began: it breaks with the first bad batch. Keras
        # has made it a Python number for its own callbacks already, so looking at it is free.
        self._batch = batch
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            self._refuse(f"the loss is {loss} at batch {batch} of epoch {self._epoch}")

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        if self._batch + 1 < self._steps:
            raise TrainingError(
                f"the training data ended in epoch {epoch}",
                expected=f"an endless dataset, {self._steps} batches an epoch",
                received=f"{self._batch + 1} batches",
                fix="let it go on without end, as .repeat() does",
            )
        # The last update of an epoch can break the weights after its loss was still finite.
        broken = [v.path for v in self.model.weights if not np.isfinite(v.numpy()).all()]
        if broken:
            self._refuse(
                f"after batch {self._batch}, the last of epoch {epoch}, these weights are not "
                f"finite: {', '.join(broken)}"
            )
        loss = (logs or {}).get("val_loss", 0.0)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the validation loss is {loss} after epoch {epoch}",
                expected="finite numbers",
                fix="look for broken images in the validation data; the checkpoint of the last "
                "finished epoch is kept",
            )
        self._batches.forget()

    def _refuse(self, what: str) -> None:
        arrays = self._batches.arrays(self._epoch, self._batch)
        names = arrays.get("names", np.array([]))
        whole = np.ones(len(arrays["images"]), bool)
        for values in (arrays[name] for name in ("images", "labels", "weights") if name in arrays):
            whole &= np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if whole.all():
            blamed = "the batch itself is finite, so the weights were broken by what they learned"
            shown = names
        else:
            shown = names[~whole] if len(names) == len(whole) else np.flatnonzero(~whole)
            blamed = f"{np.count_nonzero(~whole)} of {len(whole)} examples are not finite"
        if len(shown):
            more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
            blamed += ": " + ", ".join(map(str, shown[:_SHOWN])) + more
        raise TrainingError(
            what,
            expected="finite numbers",
            received=blamed + self._batches.keep(arrays),
            fix="lower the learning rate, or mend the images that are named; the checkpoint of "
            "the last finished epoch is kept",
        )
