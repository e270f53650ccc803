"""Batches for `fit`, `evaluate` and `predict`.

    evaluation     the photos in the order of the manifest, once, not augmented
    training       one epoch after another, without end:
                   photos of an epoch   each once, or what `sampling` draws from (seed, epoch)
                   order                a permutation drawn from (seed, epoch)
                   augmentation         drawn from (seed, epoch, sha256 of the photo, copy number)
                   mixing               drawn from (seed, epoch, number of the batch)

    batch := images  float32 (batch, height, width, 3) in [0, 255]
             labels  int32 (batch,), or float32 (batch, classes)
             weights float32 (batch,), only with `class_weight`

Nothing else is random, so training that resumes at epoch 3 sees the batches that uninterrupted
training sees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from kpipe.data.augmentation.augmenter import Augmenter
from kpipe.data.augmentation.mixing import Mixer
from kpipe.data.balancing.sampling import Sampling
from kpipe.data.loading.decoding import ImageSize, check_decoded, height_and_width
from kpipe.data.loading.epochs import draw_photos, in_batches, mixing_seed, photos_per_epoch
from kpipe.data.loading.fetching import Fetch, fetch_decoded, fetch_files
from kpipe.data.loading.training_options import TrainingOptions
from kpipe.data.manifest import Manifest
from kpipe.errors import DataError
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["dataset", "steps"]

_Batch = tuple[tf.Tensor, ...]
_PARALLEL = tf.data.AUTOTUNE


@names_wrong_kinds
def steps(
    manifest: Manifest, split: str, batch_size: int = 32, sampling: Sampling | None = None
) -> int:
    """Return the number of batches in an epoch, the last of which may be smaller.

    Args:
        manifest: the photos, split.
        split: "train", "validation" or "test".
        batch_size: number of photos in a batch.
        sampling: which photos an epoch shows; by default, each photo once.

    Raises:
        DataError: if the split is unknown or empty, or the batch size is below one.

    Example:
        >>> from kpipe.data import from_folder, split, steps
        >>> manifest = split(from_folder("photos"), (1.0, 0.0, 0.0))
        >>> steps(manifest, "train", batch_size=16)
        4
    """
    _check_batch_size(batch_size)
    return -(-photos_per_epoch(manifest.labels(split), sampling) // batch_size)


@names_wrong_kinds
def dataset(
    manifest: Manifest,
    split: str,
    *,
    image_size: ImageSize | None = None,
    batch_size: int = 32,
    images: np.ndarray | None = None,
    training: TrainingOptions | None = None,
    one_hot: bool = False,
    background: str = "white",
) -> tf.data.Dataset:
    """Return batches of one split.

    Args:
        manifest: the photos, split.
        split: "train", "validation" or "test".
        image_size: pixels, one number for a square or (height, width); optional with `images`.
        batch_size: number of photos in a batch; the last batch of an epoch may hold fewer.
        images: the result of `decode(manifest, ...)`, or any (photos, height, width, 3) uint8 array
            in the order of `manifest.table`; only the rows of a batch are read at a time. By
            default, files are decoded when needed, in every epoch; JPEGs by TensorFlow, whose
            pixels differ from those of `decode` by at most one level of 255.
        training: makes batches shuffled and endless; pass `steps_per_epoch=steps(...)` to `fit`. By
            default, one pass in the manifest's order, not augmented.
        one_hot: whether labels are one-hot, as those of a mixer always are.
        background: a CSS color, shown under transparent pixels of files.

    Returns:
        A dataset of (images, labels): float32 in [0, 255] (batch, height, width, 3), and class
        indices, int32 (batch,), or one-hot float32 (batch, classes); with class weights also
        sample weights, float32 (batch,).

    Raises:
        DataError: if the split is empty, the size is missing, the color is unknown, the images do
            not belong to the manifest, or class weights do not match its classes.

    Example:
        >>> from kpipe.data import TrainingOptions, dataset, from_folder, split
        >>> manifest = split(from_folder("photos"), (1.0, 0.0, 0.0))
        >>> training = TrainingOptions(seed=7)
        >>> batches = dataset(manifest, "train", image_size=32, batch_size=16, training=training)
        >>> images, labels = next(iter(batches))
        >>> tuple(images.shape), tuple(labels.shape)
        ((16, 32, 32, 3), (16,))
    """
    rows, size = manifest.rows(split), _size(manifest, image_size, images)
    _check_batch_size(batch_size)
    count = photos_per_epoch(manifest.labels(split), training.sampling if training else None)
    if training is None:
        photos = tf.data.Dataset.from_tensor_slices({"place": np.arange(count)})
    else:
        photos = draw_photos(manifest, split, training)
    if images is None:
        fetch = fetch_files(manifest, rows, size, background)
        batches = in_batches(_with_images(photos, fetch), count, batch_size)
    else:
        fetch = fetch_decoded(images, rows)
        batches = _with_images(in_batches(photos, count, batch_size), fetch)
    length = -(-count // batch_size)
    finish = _finish(manifest, split, training or TrainingOptions(), one_hot, length)
    finished = _map(batches.enumerate(), finish)
    cardinality = tf.data.experimental.assert_cardinality(
        length if training is None else tf.data.INFINITE_CARDINALITY
    )
    return finished.apply(cardinality).prefetch(tf.data.AUTOTUNE)


def _map(data: tf.data.Dataset, function: Callable[..., Any]) -> tf.data.Dataset:
    return data.map(function, num_parallel_calls=_PARALLEL, deterministic=True)


def _with_images(data: tf.data.Dataset, fetch: Fetch) -> tf.data.Dataset:
    return _map(data, lambda photos: {**photos, "image": fetch(photos["place"])})


def _finish(
    manifest: Manifest, split: str, training: TrainingOptions, one_hot: bool, steps_per_epoch: int
) -> Callable[[tf.Tensor, dict[str, tf.Tensor]], _Batch]:
    """Return the function that augments, mixes and labels a numbered batch."""
    labels, classes = tf.constant(manifest.labels(split)), len(manifest.classes)
    weights = _weights(training, classes)
    hot = one_hot or training.mixer is not None

    def finish(number: tf.Tensor, batch: dict[str, tf.Tensor]) -> _Batch:
        images = tf.cast(batch["image"], tf.float32)
        indices = tf.gather(labels, batch["place"])
        targets = tf.one_hot(indices, classes) if hot else indices
        weight = None if weights is None else tf.gather(weights, indices)
        if training.augmenter is not None:
            whole = training.sampling is None
            images = _augmented(training.augmenter, images, batch, whole)
        if training.mixer is not None:
            seed = mixing_seed(training, steps_per_epoch, number)
            images, targets, weight = _mixed(training.mixer, images, targets, weight, seed)
        images = tf.ensure_shape(images, batch["image"].shape)
        return (images, targets) if weight is None else (images, targets, weight)

    return finish


def _weights(training: TrainingOptions, classes: int) -> tf.Tensor | None:
    """The weight of each class, (classes,) float32."""
    if training.class_weight is None:
        return None
    weighted, known = set(training.class_weight), set(range(classes))
    if weighted != known:
        missing, unknown = sorted(known - weighted), sorted(weighted - known, key=str)
        raise DataError(
            "the class weights do not match the manifest's classes",
            expected=f"a weight for each index from 0 to {classes - 1}",
            received=f"missing {missing}, unknown {unknown}",
            fix="compute them with kpipe.data.class_weight(manifest.labels('train'))",
        )
    return tf.constant([training.class_weight[index] for index in range(classes)], tf.float32)


def _augmented(
    augmenter: Augmenter, images: tf.Tensor, batch: dict[str, tf.Tensor], whole: bool
) -> tf.Tensor:
    if whole:
        return augmenter(images, batch["seed"])
    chosen = tf.where(batch["augmented"])

    def augmented() -> tf.Tensor:
        seeds = tf.gather_nd(batch["seed"], chosen)
        changed = augmenter(tf.gather_nd(images, chosen), seeds)
        return tf.tensor_scatter_nd_update(images, chosen, changed)

    return tf.cond(tf.size(chosen) > 0, augmented, lambda: images)


def _mixed(
    mixer: Mixer, images: tf.Tensor, labels: tf.Tensor, weight: tf.Tensor | None, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
    """Mix images, labels and weights.

    Cross-entropy is linear in the label. So the loss of a mix of `a` and `b` is exactly
    `lambda * w_a * CE(a) + (1 - lambda) * w_b * CE(b)` if the one-hot labels are multiplied by
    `w_a` and `w_b` before they are mixed, and the sum of the mixed label becomes the weight.
    """
    if weight is None:
        return *mixer(images, labels, seed), None
    images, labels = mixer(images, labels * weight[:, None], seed)
    weight = tf.reduce_sum(labels, -1)
    return images, tf.math.divide_no_nan(labels, weight[:, None]), weight


def _size(
    manifest: Manifest, image_size: ImageSize | None, images: np.ndarray | None
) -> tuple[int, int]:
    requested = None if image_size is None else height_and_width(image_size)
    if images is None:
        if requested is None:
            raise DataError("no image size", fix="pass image_size=, or images= from decode")
        return requested
    check_decoded(manifest, images, requested)
    return images.shape[1], images.shape[2]


def _check_batch_size(batch_size: int) -> None:
    if not batch_size >= 1:
        raise DataError(f"batch_size={batch_size!r} is out of range", expected="at least 1")
