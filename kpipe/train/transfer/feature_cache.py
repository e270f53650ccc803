"""The frozen part of a model computed once, so that what trains can train on its results.

    model := stem (frozen: pixels -> features), tail (what trains: features -> probabilities)

    folder := about.json             of which stem, and of how many batches, the features are
              view-000/, view-001/   what epoch 0, epoch 1, ... of the training data show
              validation/
    part   := features.npy  (photos, ...), mapped from the disk
              labels.npy    (photos,) or (photos, classes)
              weights.npy   (photos,), where the data has weights
              bounds.npy    (batches, 2): first photo, and the one after the last

    epoch e trains on view e mod K,   in the order of the data          where e < K,
                                      permuted, drawn from (seed, e)    after that

So the first K epochs are those that a training of the whole model would see, batch by batch. A view
goes into an epoch as a whole, rather than each photo choosing among its views: every view then
counts the same, an epoch reads one file, and what the data draws for an epoch (photos of rare
classes more often, mixed photos) stays together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from kpipe.errors import TrainingError
from kpipe.train.transfer.unfreezing import frozen_end

__all__ = ["COLUMNS", "FeaturePlan", "Features", "split_frozen", "view_name"]

COLUMNS = ("features", "labels", "weights")
Names: TypeAlias = Sequence[str]
_Tensors = tuple[tf.Tensor, ...]


@dataclass(frozen=True)
class FeaturePlan:
    """Which features are kept.

    Args:
        views: epochs of the training data to keep, at least 1. More than one is of use only where
            epochs differ by more than their order, as augmented ones do.
        seed: of the order from epoch `views` on, in [-2**63, 2**63).
        dtype: of the file. Half precision halves it, and rounds features to 3 digits.
        folder: where they are kept, named by all that they depend on, so that another training
            finds them; None for a folder beside the checkpoints of this one.
    """

    views: int = 1
    seed: int = 0
    dtype: Literal["float32", "float16"] = "float32"
    folder: Path | None = None

    def __post_init__(self) -> None:
        if self.views < 1:
            raise TrainingError(
                "a training on features needs views of the photos",
                expected="1 or more",
                received=f"views={self.views}",
            )
        if self.dtype not in ("float32", "float16"):
            raise TrainingError(
                "features are kept as floats",
                expected="float32 or float16",
                received=repr(self.dtype),
            )


@dataclass(frozen=True)
class Features:
    """Features on disk, to train on in place of photos."""

    folder: Path
    plan: FeaturePlan

    def training(self, first_epoch: int) -> tf.data.Dataset:
        """Endless batches (features, labels[, weights]) from an epoch on: `data` of `fit`."""
        views = self.plan.views
        parts = [_Part.read(self.folder / view_name(number)) for number in range(views)]
        bounds = tf.constant(np.stack([part.bounds for part in parts]))

        def gather(number: np.ndarray, places: np.ndarray) -> list[np.ndarray]:
            return parts[int(number)].rows(places)

        def batches(epoch: tf.Tensor) -> tf.data.Dataset:
            number = epoch % views
            order = self._order(epoch, bounds[number, -1, 1])
            return tf.data.Dataset.from_tensor_slices(bounds[number]).map(
                lambda bound: parts[0].batch(gather, number, order[bound[0] : bound[1]])
            )

        endless = tf.data.Dataset.counter(first_epoch).flat_map(batches)
        return endless.prefetch(tf.data.AUTOTUNE)

    def named(self, batch_names: Callable[[int, int], Names]) -> Callable[[int, int], Names]:
        """The photos of each batch of `training`.

        Args:
            batch_names: epoch, batch -> the names of its photos, of the data that was extracted.
        """

        def names(epoch: int, batch: int) -> Names:
            view = epoch % self.plan.views
            bounds = np.load(self.folder / view_name(view) / "bounds.npy")
            order = self._order(tf.constant(epoch, tf.int64), bounds[-1, 1]).numpy()
            rows = order[slice(*bounds[batch])]
            sources = np.searchsorted(bounds[:, 1], rows, side="right")
            return [
                batch_names(view, int(source))[row - bounds[source, 0]]
                for source, row in zip(sources, rows, strict=True)
            ]

        return names

    def _order(self, epoch: tf.Tensor, count: Any) -> tf.Tensor:
        """Which of `count` rows of a view an epoch shows, one after the other."""
        rows = tf.range(count)
        seed = tf.stack([tf.constant(self.plan.seed, tf.int64), epoch])
        return tf.cond(
            epoch < self.plan.views,
            lambda: rows,
            lambda: tf.random.experimental.stateless_shuffle(rows, seed),
        )

    def validation(self) -> tf.data.Dataset | None:
        """The validation photos once, in their order and their batches; None where none were."""
        if not (self.folder / "validation").exists():
            return None
        part = _Part.read(self.folder / "validation")
        return (
            tf.data.Dataset.from_tensor_slices(part.bounds)
            .map(lambda bound: part.batch(part.rows, tf.range(bound[0], bound[1])))
            .prefetch(tf.data.AUTOTUNE)
        )


@dataclass(frozen=True)
class _Part:
    """One pass over photos.

    Args:
        arrays: features, labels and, if any, weights, a photo a row.
        bounds: (batches, 2) int64, the rows of each batch.
    """

    arrays: tuple[np.ndarray, ...]
    bounds: np.ndarray

    @classmethod
    def read(cls, folder: Path) -> _Part:
        files = [folder / f"{name}.npy" for name in COLUMNS]
        arrays = tuple(np.load(file, mmap_mode="r") for file in files if file.exists())
        return cls(arrays, np.load(folder / "bounds.npy"))

    def rows(self, places: np.ndarray) -> list[np.ndarray]:
        """Features, labels and weights of some photos, in one read each."""
        features, *others = (np.asarray(array[places]) for array in self.arrays)
        return [features.astype(np.float32, copy=False), *others]

    def batch(self, read: Callable[..., list[np.ndarray]], *arguments: tf.Tensor) -> _Tensors:
        """What `read` gives, with the types and shapes that are known."""
        types = [tf.float32, *(array.dtype for array in self.arrays[1:])]
        made = tf.numpy_function(read, arguments, types, stateful=False)
        pairs = zip(made, self.arrays, strict=True)
        return tuple(tf.ensure_shape(x, (None, *array.shape[1:])) for x, array in pairs)


def view_name(number: int) -> str:
    """The folder of a view."""
    return f"view-{number:03d}"


def split_frozen(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """A model in two, where what is frozen ends.

    Args:
        model: functional, with one input, some of its first layers frozen, as `unfreeze` leaves it.

    Returns:
        The stem, from the model's input to features, and the tail, from features to the model's
        output. Both share their layers with the model, so that training the tail trains it.

    Raises:
        TrainingError: nothing is frozen before what trains, or nothing trains.
    """
    end = frozen_end(model)
    stem = keras.Model(model.inputs[0], end)
    if not model.trainable_weights or not stem.weights:
        raise TrainingError(
            f"there is no place to cut the model {model.name!r} at",
            expected="first layers that are frozen, and after them layers that train",
            received=f"{len(model.trainable_weights)} weights that train, of {len(model.weights)}",
            fix="call unfreeze(model, last=...) first; where all layers train, train on the photos",
        )
    return stem, keras.Model(end, model.outputs[0])
