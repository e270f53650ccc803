"""Stop training when the loss or a weight becomes NaN or infinite, and save the batch at fault.

checked: the loss of each batch; the validation loss and all weights after each epoch
refused-batch.npz := images, labels, weights (if the data has them), names (if known)
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from kpipe.errors import TrainingError
from kpipe.train.loop.checkpoint import store
from kpipe.train.training_data import TrainingData

__all__ = ["FailedBatch", "TerminateOnNonFinite"]

_FILE = "refused-batch.npz"
_MOST_NAMES = 8


@dataclass(frozen=True)
class FailedBatch:
    """Read a batch again that made training fail, and save it.

    Args:
        data: of the training run.
        folder: where the batch is saved; None to save none.
    """

    data: TrainingData
    folder: Path | None

    def read(self, epoch: int, batch: int) -> dict[str, np.ndarray]:
        """Return images, labels and, if there are any, weights and names."""
        (values,) = self.data.batches(epoch).skip(batch).take(1)
        arrays = {
            name: np.asarray(value)
            for name, value in zip(("images", "labels", "weights"), values, strict=False)
        }
        if self.data.batch_names is not None:
            arrays["names"] = np.array([str(name) for name in self.data.batch_names(epoch, batch)])
        return arrays

    def save(self, arrays: Mapping[str, np.ndarray]) -> str:
        """Write a batch into the folder, and return the end of a sentence that reports it."""
        if self.folder is None:
            return ""
        path = self.folder / _FILE
        try:
            store(path, arrays)
        except OSError as error:
            return f"; the batch could not be saved as {path}: {error}"
        return f"; the batch is saved as {path}"

    def remove(self) -> None:
        """Remove a batch that an earlier run saved."""
        if self.folder is not None:
            with contextlib.suppress(FileNotFoundError):
                (self.folder / _FILE).unlink()


class TerminateOnNonFinite(keras.callbacks.Callback):
    """Raise a TrainingError, before the checkpoint is written, if numbers are not finite.

    It also raises one if the data ends. It must be the first callback.
    """

    def __init__(self, failed: FailedBatch) -> None:
        super().__init__()
        self._failed = failed
        self._steps = failed.data.steps_per_epoch

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._epoch = epoch
        self._batch = -1

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        # The loss is the mean since the epoch began, so the first bad batch makes it NaN. Keras has
        # already converted it to a Python number, so the check costs nothing.
        self._batch = batch
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            self._stop(f"the loss is {loss} at batch {batch} of epoch {self._epoch}")

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        if self._batch + 1 < self._steps:
            raise TrainingError(
                f"the training data ended in epoch {epoch}",
                expected=f"an endless dataset, {self._steps} batches an epoch",
                received=f"{self._batch + 1} batches",
                fix="make the dataset endless with .repeat()",
            )
        # The last update of an epoch can break the weights although its loss is still finite.
        broken = [v.path for v in self.model.weights if not np.isfinite(v.numpy()).all()]
        if broken:
            self._stop(
                f"after batch {self._batch}, the last of epoch {epoch}, these weights are not "
                f"finite: {', '.join(broken)}"
            )
        loss = (logs or {}).get("val_loss", 0.0)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the validation loss is {loss} after epoch {epoch}",
                expected="finite numbers",
                fix="look for broken images in the validation data; the last checkpoint is kept",
            )
        self._failed.remove()

    def _stop(self, what: str) -> None:
        arrays = self._failed.read(self._epoch, self._batch)
        names = arrays.get("names", np.array([]))
        finite = np.ones(len(arrays["images"]), bool)
        for values in (arrays[name] for name in ("images", "labels", "weights") if name in arrays):
            finite &= np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if finite.all():
            reason = "the batch itself is finite, so training on it broke the weights"
            shown = names
        else:
            shown = names[~finite] if len(names) == len(finite) else np.flatnonzero(~finite)
            reason = f"{np.count_nonzero(~finite)} of {len(finite)} examples are not finite"
        if len(shown):
            more = len(shown) - _MOST_NAMES
            reason += ": " + ", ".join(map(str, shown[:_MOST_NAMES]))
            reason += f" and {more} more" if more > 0 else ""
        raise TrainingError(
            what,
            expected="finite numbers",
            received=reason + self._failed.save(arrays),
            fix="lower the learning rate, or replace the images named above; the last checkpoint "
            "is kept",
        )
