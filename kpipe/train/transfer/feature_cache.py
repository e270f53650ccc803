"""Features of the frozen part of a model, computed once and read by the part that trains.

    model := stem (frozen: pixels -> features), tail (trains: features -> probabilities)

    folder := about.json             identifies the stem and the number of batches
              view-000/, view-001/   features of epoch 0, epoch 1, ... of the training data
              validation/
    view   := features.npy  (photos, ...), memory-mapped
              labels.npy    (photos,) or (photos, classes)
              weights.npy   (photos,), if the data has weights
              bounds.npy    (batches, 2): first photo, and the one after the last
              sha256.json   the digest of each of these files; a view that differs is computed again

    epoch e trains on view e mod K,   in the order of the data            if e < K,
                                      shuffled with the seed (seed, e)    otherwise,
                                                                          and with a `source`

So the first K epochs equal those of training the whole model, batch by batch. An epoch reads one
whole view, rather than choosing a view for each photo: all views are used equally often, an epoch
reads one file, and what the data draws for an epoch (oversampled or mixed photos) stays together.
Training runs that share the features of a `source` differ in their order, and in their `rows`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from kpipe.errors import TrainingError
from kpipe.train.argument_checks import refuse_out_of_range
from kpipe.train.training_data import BatchNames, TrainingData
from kpipe.train.transfer.unfreezing import frozen_output
from kpipe.wrong_kinds import names_wrong_kinds, names_wrong_kinds_of_fields

__all__ = ["COLUMNS", "CachedFeatures", "FeatureConfig", "split_frozen", "view_name"]

COLUMNS = ("features", "labels", "weights")
_Tensors = tuple[tf.Tensor, ...]


@names_wrong_kinds_of_fields
@dataclass(frozen=True)
class FeatureConfig:
    """Which features to compute and store.

    Args:
        views: epochs of the training data to compute features of, at least 1. More than one helps
            only if epochs differ by more than their order, as with augmentation.
        seed: of the order from epoch `views` on, in [-2**63, 2**63).
        dtype: of the file. float16 halves its size and rounds features to 3 digits.
        folder: of the features, named by everything that they depend on, so that other training
            runs find them; None for a folder beside the checkpoints.
        source: the data whose features are computed, if several training runs share them; None for
            the data of the training run itself.
        rows: the rows of each view that an epoch reads, int64 (views, photos), such as a bootstrap
            sample; None for each row once.

    Raises:
        TrainingError: a number of views out of range, an unknown dtype, or rows of other views.

    Example:
        >>> from kpipe.train import FeatureConfig
        >>> FeatureConfig(views=3).dtype
        'float32'
    """

    views: int = 1
    seed: int = 0
    dtype: Literal["float32", "float16"] = "float32"
    folder: Path | None = None
    source: TrainingData | None = None
    rows: np.ndarray | None = None

    def __post_init__(self) -> None:
        refuse_out_of_range("views", self.views, 1)
        refuse_out_of_range("seed", self.seed, -(2**63), 2**63)
        if self.dtype not in ("float32", "float16"):
            raise TrainingError(
                "unknown dtype of features",
                expected="float32 or float16",
                received=repr(self.dtype),
            )
        if self.rows is not None and not (
            self.rows.ndim == 2 and len(self.rows) == self.views and self.rows.dtype.kind in "iu"
        ):
            raise TrainingError(
                "rows does not fit the views",
                expected=f"whole numbers ({self.views}, photos)",
                received=f"{self.rows.dtype} {self.rows.shape}",
            )


@dataclass(frozen=True)
class CachedFeatures:
    """Features on disk, to train on in place of photos; see `extract_features`.

    Args:
        folder: that `extract_features` wrote.
        config: with which it was called.

    Example:
        >>> from pathlib import Path
        >>> from kpipe.train import CachedFeatures, FeatureConfig
        >>> features = CachedFeatures(Path("features"), FeatureConfig(views=2))
        >>> features.validation() is None  # nothing has been extracted yet
        True
    """

    folder: Path
    config: FeatureConfig

    def training_data(self, data: TrainingData) -> TrainingData:
        """Return the features as the data of a training run.

        Args:
            data: the photos from which the features were computed.
        """
        validation = self.validation() if data.validation is not None else None
        names = self._batch_names(data.batch_names) if data.batch_names is not None else None
        return TrainingData(self.training, data.steps_per_epoch, validation, names)

    def training(self, first_epoch: int) -> tf.data.Dataset:
        """Return endless batches (features, labels[, weights]) from an epoch on."""
        views = self.config.views
        stored = [_View.read(self.folder / view_name(number)) for number in range(views)]
        bounds = tf.constant(np.stack([view.bounds for view in stored]))

        def gather(number: np.ndarray, places: np.ndarray) -> list[np.ndarray]:
            return stored[int(number)].rows(places)

        rows = self._rows(bounds[0, -1, 1])

        def batches(epoch: tf.Tensor) -> tf.data.Dataset:
            number = epoch % views
            order = self._order(epoch, rows[number])
            return tf.data.Dataset.from_tensor_slices(bounds[number]).map(
                lambda bound: stored[0].batch(gather, number, order[bound[0] : bound[1]])
            )

        endless = tf.data.Dataset.counter(first_epoch).flat_map(batches)
        return endless.prefetch(tf.data.AUTOTUNE)

    def _batch_names(self, of_photos: BatchNames) -> BatchNames:
        """Map batches of `training` to the names of their photos, given those of the data."""

        def names(epoch: int, batch: int) -> Sequence[str]:
            view = epoch % self.config.views
            bounds = np.load(self.folder / view_name(view) / "bounds.npy")
            every = self._rows(bounds[-1, 1])[view]
            rows = self._order(tf.constant(epoch, tf.int64), every).numpy()[slice(*bounds[batch])]
            sources = np.searchsorted(bounds[:, 1], rows, side="right")
            return [
                of_photos(view, int(source))[row - bounds[source, 0]]
                for source, row in zip(sources, rows, strict=True)
            ]

        return names

    def _rows(self, count: Any) -> tf.Tensor:
        """Return the rows of each view that an epoch reads, int64 (views, count)."""
        rows = self.config.rows
        if rows is None:
            return tf.tile(tf.range(tf.cast(count, tf.int64))[None], (self.config.views, 1))
        if rows.shape[1] != int(count) or rows.min() < 0 or rows.max() >= int(count):
            raise TrainingError(
                f"rows does not fit the features in {self.folder}",
                expected=f"{int(count)} rows of each view, from 0 to {int(count) - 1}",
                received=f"{rows.shape[1]}, from {rows.min()} to {rows.max()}",
            )
        return tf.constant(rows, tf.int64)

    def _order(self, epoch: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """Return the order in which an epoch reads the rows of its view."""
        seed = tf.stack([tf.constant(self.config.seed, tf.int64), epoch])
        return tf.cond(
            epoch < (self.config.views if self.config.source is None else 0),
            lambda: rows,
            lambda: tf.random.experimental.stateless_shuffle(rows, seed),
        )

    def validation(self) -> tf.data.Dataset | None:
        """Return batches of the validation photos in their order; None if there are none."""
        if not (self.folder / "validation").exists():
            return None
        view = _View.read(self.folder / "validation")
        return (
            tf.data.Dataset.from_tensor_slices(view.bounds)
            .map(lambda bound: view.batch(view.rows, tf.range(bound[0], bound[1])))
            .prefetch(tf.data.AUTOTUNE)
        )


@dataclass(frozen=True)
class _View:
    """Features of one pass over photos.

    Args:
        arrays: features, labels and, if any, weights, with one photo in each row.
        bounds: (batches, 2) int64, the rows of each batch.
    """

    arrays: tuple[np.ndarray, ...]
    bounds: np.ndarray

    @classmethod
    def read(cls, folder: Path) -> _View:
        files = [folder / f"{name}.npy" for name in COLUMNS]
        arrays = tuple(np.load(file, mmap_mode="r") for file in files if file.exists())
        return cls(arrays, np.load(folder / "bounds.npy"))

    def rows(self, places: np.ndarray) -> list[np.ndarray]:
        """Read features, labels and weights of some photos, each at once."""
        features, *others = (np.asarray(array[places]) for array in self.arrays)
        return [features.astype(np.float32, copy=False), *others]

    def batch(self, read: Callable[..., list[np.ndarray]], *arguments: tf.Tensor) -> _Tensors:
        """Call `read` from TensorFlow, and set the types and shapes of its result."""
        types = [tf.float32, *(array.dtype for array in self.arrays[1:])]
        columns = tf.numpy_function(read, arguments, types, stateful=False)
        pairs = zip(columns, self.arrays, strict=True)
        return tuple(tf.ensure_shape(x, (None, *array.shape[1:])) for x, array in pairs)


def view_name(number: int) -> str:
    """Return the name of a view's folder."""
    return f"view-{number:03d}"


@names_wrong_kinds
def split_frozen(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Split a model at the end of its frozen part.

    Args:
        model: a functional or Sequential model with one input, whose first layers `unfreeze` froze.

    Returns:
        The stem, from the input to features, and the tail, from features to the output. Both share
        their layers with the model, so training the tail trains the model.

    Raises:
        TrainingError: no layers are frozen before those that train, none train, or the model has
            several inputs.

    Example:
        >>> from kpipe.train import backbone, classifier, split_frozen, unfreeze
        >>> base = backbone("MobileNet", image_size=32, weights=None, alpha=0.25)
        >>> model = classifier(base, classes=3)
        >>> layers = unfreeze(model, last=0)
        >>> stem, tail = split_frozen(model)
        >>> stem.output_shape, tail.output_shape
        ((None, 256), (None, 3))
    """
    end = frozen_output(model)
    if len(model.inputs) > 1:
        raise TrainingError(
            f"the model {model.name!r} has several inputs",
            expected="one input, of images",
            received=f"{len(model.inputs)} inputs",
        )
    stem = keras.Model(model.inputs[0], end)
    if not model.trainable_weights or not stem.weights:
        raise TrainingError(
            f"the model {model.name!r} cannot be split into a frozen and a trainable part",
            expected="frozen layers followed by trainable ones",
            received=f"{len(model.trainable_weights)} of {len(model.weights)} weights trainable",
            fix="call unfreeze(model, last=...) first; if all layers train, train on the photos",
        )
    return stem, keras.Model(end, model.outputs[0])
