"""Which photos each epoch of a training run shows, in which order, and with which random seeds.

    photo := place      () int64, position among the photos of the split
             seed       (2,) int64, seed of its augmentation
             augmented  () bool, whether it is augmented

    order of an epoch   := permutation drawn from (seed, epoch)
    seed of a photo     := (seed, epoch) <- copy number, if not 0 <- content
    content             := sha256 + number of earlier rows with the same bytes
    seed of a mixing    := (seed, epoch) <- "mixing" <- number of the batch

    bootstrap           := another photo of its class in place of each, drawn with replacement from
                           (bootstrap, contents of all photos). Seeds stay those of the photo that
                           it replaces, so that copies are augmented in different ways.

where `<-` is `tf.random.experimental.stateless_fold_in`.
"""

from __future__ import annotations

import zlib

import numpy as np
import tensorflow as tf

from kpipe.data.balancing.sampling import Sampling
from kpipe.data.loading.training_options import TrainingOptions
from kpipe.data.manifest import Manifest

__all__ = [
    "bootstrap_counts",
    "draw_photos",
    "in_batches",
    "mixing_seed",
    "photos_of_batch",
    "photos_per_epoch",
]

_MIXING = zlib.crc32(b"mixing")  # stable, unlike hash()


def photos_per_epoch(labels: np.ndarray, sampling: Sampling | None) -> int:
    """Return the number of photos in an epoch, the same for every epoch."""
    return sum(sampling.targets(labels).values()) if sampling else len(labels)


def draw_photos(manifest: Manifest, split: str, training: TrainingOptions) -> tf.data.Dataset:
    """Return the photos of one epoch after another, without end, as dictionaries of tensors."""
    keys, labels = _keys(manifest, manifest.rows(split)), manifest.labels(split)
    # Drawn in the order of their content, so that the order of the rows does not matter.
    by_content = np.lexsort((labels, keys)).astype(np.int64)
    sorted_keys, sorted_labels = tf.constant(_distinct(keys[by_content])), labels[by_content]
    shown = by_content[_bootstrap(sorted_labels, training.bootstrap)]

    def photos(epoch: tf.Tensor) -> tf.data.Dataset:
        seed = tf.stack([tf.constant(training.seed, tf.int64), epoch])
        positions, copies, augmented = _drawn(training, sorted_labels, epoch)
        streams = tf.gather(_streams(seed, tf.reduce_max(copies) + 1), copies)
        columns = {
            "place": tf.gather(shown, positions),
            "seed": tf.stack([streams, tf.gather(sorted_keys, positions)], -1),
            "augmented": augmented,
        }
        order = tf.random.experimental.stateless_shuffle(tf.range(len(positions)), seed)
        return tf.data.Dataset.from_tensor_slices(
            {name: tf.gather(column, order) for name, column in columns.items()}
        )

    return tf.data.Dataset.counter(training.first_epoch).flat_map(photos)


def in_batches(photos: tf.data.Dataset, count: int, batch_size: int) -> tf.data.Dataset:
    """Batch photos so that no batch holds photos of two epochs of `count` photos."""
    whole, rest = divmod(count, batch_size)
    sizes = [batch_size] * whole + ([rest] if rest else [])
    return photos.batch(batch_size).rebatch(sizes) if rest else photos.batch(batch_size)


def photos_of_batch(
    manifest: Manifest, split: str, training: TrainingOptions, batch_size: int, batch: int
) -> np.ndarray:
    """Return the photos of a split in one batch of the first epoch: (photos,) int64."""
    count = photos_per_epoch(manifest.labels(split), training.sampling)
    batches = in_batches(draw_photos(manifest, split, training), count, batch_size)
    (photos,) = batches.skip(batch).take(1).as_numpy_iterator()
    places: np.ndarray = photos["place"]
    return places


def bootstrap_counts(manifest: Manifest, split: str, bootstrap: int) -> np.ndarray:
    """Return how often a bootstrap sample holds each photo of a split: (photos,) int64."""
    keys, labels = _keys(manifest, manifest.rows(split)), manifest.labels(split)
    by_content = np.lexsort((labels, keys))
    shown = by_content[_bootstrap(labels[by_content], bootstrap)]
    return np.bincount(shown, minlength=len(labels))


def mixing_seed(training: TrainingOptions, steps: int, number: tf.Tensor) -> tf.Tensor:
    """Return the seed for mixing one batch, (2,) int64.

    Args:
        training: provides seed and first epoch.
        steps: number of batches in an epoch.
        number: number of the batch, counted from 0 at `training.first_epoch`.
    """
    epoch = tf.stack([tf.constant(training.seed, tf.int64), training.first_epoch + number // steps])
    return _fold(_fold(epoch, _MIXING), number % steps)


def _drawn(
    training: TrainingOptions, labels: np.ndarray, epoch: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Positions, copy numbers and whether to augment, of an epoch's photos: (photos,) each."""
    sampling = training.sampling
    if sampling is None:
        every = np.arange(len(labels))
        return tf.constant(every), tf.zeros_like(every), tf.ones_like(every, tf.bool)
    count = photos_per_epoch(labels, sampling)

    def draw(number: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        positions, copies = sampling.draw(labels, training.seed, int(number))
        return positions, copies, sampling.augments(copies)

    types = (tf.int64, tf.int64, tf.bool)
    drawn = tf.numpy_function(draw, [epoch], types, stateful=False)
    positions, copies, augmented = (tf.ensure_shape(column, (count,)) for column in drawn)
    return positions, copies, augmented


def _bootstrap(labels: np.ndarray, bootstrap: int | None) -> np.ndarray:
    """Return the position of the photo that is shown in place of each: (photos,) int64."""
    shown = np.arange(len(labels))
    if bootstrap is not None:
        generator = np.random.default_rng(bootstrap)
        for label in np.unique(labels):
            (of_class,) = np.nonzero(labels == label)
            shown[of_class] = generator.choice(of_class, len(of_class))
    return shown


def _streams(seed: tf.Tensor, copies: tf.Tensor) -> tf.Tensor:
    """Fold 0 into the seed of each copy number, and return the first half: (copies,) int64."""

    def stream(copy: tf.Tensor) -> tf.Tensor:
        return _fold(tf.where(copy == 0, seed, _fold(seed, copy)), 0)[0]

    return tf.map_fn(stream, tf.range(copies, dtype=tf.int64))


def _fold(seed: tf.Tensor, number: tf.Tensor | int) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(seed, tf.cast(number, tf.int64))


def _distinct(keys: np.ndarray) -> np.ndarray:
    """Sorted keys, equal ones counted up: an over-sampled table repeats its rows."""
    _, first, each = np.unique(keys, return_index=True, return_inverse=True)
    return keys + np.arange(len(keys)) - first[each]


def _keys(manifest: Manifest, rows: np.ndarray) -> np.ndarray:
    """64 bits of each photo's sha256: (photos,) int64."""
    digests = manifest.table["sha256"].to_numpy()[rows]
    return np.array([int(digest[:16], 16) for digest in digests], np.uint64).view(np.int64)
