"""Batches for `fit`, `evaluate` and `predict`.

    evaluation     the photos in the order of the manifest, once, never augmented
    training       epoch after epoch without end: photos in the order of a permutation drawn from
                   (seed, epoch), each augmented by draws from (seed, epoch, sha256 of the photo)

Both give images, float32 in [0, 255] (batch, height, width, 3), and labels, int32 (batch,). Every
number is a function of these alone, so training that starts at epoch 3 sees what training from
epoch 0 sees from its fourth epoch on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from kpipe.data.augmentation import Augmenter
from kpipe.data.decoding import ImageSize, height_and_width, load_image
from kpipe.data.manifest import Manifest
from kpipe.errors import DataError

__all__ = ["Training", "dataset", "steps"]

_PARALLEL = tf.data.AUTOTUNE


@dataclass(frozen=True)
class Training:
    """How the photos are shuffled and changed, and where in the training to begin.

    Args:
        seed: of order and augmentation, in [-2**63, 2**63).
        augmenter: changes each photo; none without it.
        first_epoch: epochs that are over, counted from 0.

    Raises:
        DataError: a seed or epoch out of range.
    """

    seed: int = 0
    augmenter: Augmenter | None = None
    first_epoch: int = 0

    def __post_init__(self) -> None:
        for name, low in (("seed", -(2**63)), ("first_epoch", 0)):
            value = getattr(self, name)
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if not whole or not low <= value < 2**63:
                raise DataError(
                    f"{name}={value!r} is out of its range",
                    expected=f"a whole number of at least {low} and below 2**63",
                )


def steps(manifest: Manifest, split: str, batch_size: int = 32) -> int:
    """Batches of one epoch, the last of which may be smaller.

    Raises:
        DataError: no such split, an empty one, or no batch size.
    """
    return -(-len(manifest.rows(split)) // _checked(batch_size))


def dataset(
    manifest: Manifest,
    split: str,
    *,
    image_size: ImageSize | None = None,
    batch_size: int = 32,
    images: np.ndarray | None = None,
    training: Training | None = None,
) -> tf.data.Dataset:
    """Batches of one split.

    Args:
        manifest: the photos, split.
        split: "train", "validation" or "test".
        image_size: pixels, one number for a square or (height, width). May be left out with
            `images`.
        batch_size: photos in a batch; the last of an epoch may hold fewer, none holds two epochs.
        images: what `decode(manifest, ...)` returned, or any (photos, height, width, 3) uint8 array
            in the order of `manifest.table`; only the rows of a batch are read at a time. Without
            it, files are decoded as they are needed, in every epoch.
        training: shuffled, endless batches, to use with `steps_per_epoch=steps(...)`. Without it,
            one pass in the manifest's order, never augmented.

    Returns:
        A dataset of (images, labels): float32 in [0, 255] (batch, height, width, 3), and class
        indices, int32 (batch,).

    Raises:
        DataError: an empty split, no size, or images that do not belong to the manifest.
    """
    rows, labels = manifest.rows(split), manifest.labels(split)
    size = _size(manifest, image_size, images)
    fetch = _gathered(rows, images) if images is not None else _decoded(manifest, rows, size)
    _checked(batch_size)

    def batch(places: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Declared stateless, or deterministic mode would run the map one batch at a time.
        photos = tf.numpy_function(fetch, [places], tf.uint8, stateful=False)
        photos = tf.ensure_shape(photos, (None, *size, 3))
        return tf.cast(photos, tf.float32), tf.gather(tf.constant(labels), places)

    if training is None:
        places = tf.data.Dataset.range(len(rows)).batch(batch_size)
        made = places.map(batch, num_parallel_calls=_PARALLEL, deterministic=True)
        return made.prefetch(tf.data.AUTOTUNE)

    keys = _keys(manifest, rows)
    # Photos are permuted from the order of their content, so that of the table does not matter.
    by_content = np.lexsort((labels, keys)).astype(np.int64)
    seed = tf.constant(training.seed, tf.int64)

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(
            tf.constant(by_content), seed=tf.stack([seed, number])
        )
        return (
            tf.data.Dataset.from_tensor_slices(order)
            .batch(batch_size)
            .map(lambda places: (number, places))
        )

    def training_batch(number: tf.Tensor, places: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        photos, targets = batch(places)
        if training.augmenter is not None:
            drawn = (tf.stack([seed, number]), tf.gather(tf.constant(keys), places))
            photos = _augmented(training.augmenter, photos, *drawn)
        return photos, targets

    made = tf.data.Dataset.counter(training.first_epoch).flat_map(epoch)
    made = made.map(training_batch, num_parallel_calls=_PARALLEL, deterministic=True)
    endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    return made.apply(endless).prefetch(tf.data.AUTOTUNE)


def _augmented(
    augmenter: Augmenter, photos: tf.Tensor, seed: tf.Tensor, keys: tf.Tensor
) -> tf.Tensor:
    """Each photo of a batch by a draw of its own: (batch, height, width, 3) float32."""

    def one(pair: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        photo, key = pair
        return augmenter(photo, tf.random.experimental.stateless_fold_in(seed, key))

    signature = tf.TensorSpec(photos.shape[1:], tf.float32)
    return tf.map_fn(one, (photos, keys), fn_output_signature=signature)


def _keys(manifest: Manifest, rows: np.ndarray) -> np.ndarray:
    """64 bits of each photo's sha256: (photos,) int64."""
    digests = manifest.table["sha256"].to_numpy()[rows]
    return np.array([int(digest[:16], 16) for digest in digests], np.uint64).view(np.int64)


def _gathered(rows: np.ndarray, images: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda places: images[rows[places]]


def _decoded(
    manifest: Manifest, rows: np.ndarray, size: tuple[int, int]
) -> Callable[[np.ndarray], np.ndarray]:
    paths = manifest.table["path"].to_numpy()[rows]
    return lambda places: np.stack([load_image(path, size) for path in paths[places]])


def _size(
    manifest: Manifest, image_size: ImageSize | None, images: np.ndarray | None
) -> tuple[int, int]:
    asked = None if image_size is None else height_and_width(image_size)
    if images is None:
        if asked is None:
            raise DataError("no image size", fix="pass image_size=, or images= from decode")
        return asked
    shape = tuple(images.shape)
    fits = len(shape) == 4 and shape[0] == len(manifest.table) and shape[3] == 3
    if not fits or images.dtype != np.uint8 or (asked is not None and asked != shape[1:3]):
        height, width = asked or ("height", "width")
        raise DataError(
            "the decoded images are not those of this manifest and size",
            expected=f"uint8 ({len(manifest.table)}, {height}, {width}, 3)",
            received=f"{images.dtype} {shape}",
            fix="decode the same manifest again: kpipe.data.decode(manifest, image_size, folder)",
        )
    return shape[1], shape[2]


def _checked(batch_size: int) -> int:
    whole = isinstance(batch_size, int | np.integer) and not isinstance(batch_size, bool)
    if not whole or batch_size < 1:
        raise DataError(
            f"no batch holds {batch_size!r} photos", expected="a whole number above zero"
        )
    return int(batch_size)
