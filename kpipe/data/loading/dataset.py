"""Batches for `fit`, `evaluate` and `predict`.

    evaluation     the photos in the order of the manifest, once, never augmented
    training       epoch after epoch without end:
                   photos of an epoch   each once, or what `sampling` draws from (seed, epoch)
                   order                a permutation drawn from (seed, epoch)
                   augmentation         drawn from (seed, epoch, sha256 of the photo, its copy)
                   mixing               drawn from (seed, epoch, number of the batch)

    batch := images  float32 (batch, height, width, 3) in [0, 255]
             labels  int32 (batch,), or float32 (batch, classes)
             weights float32 (batch,), with `class_weight` only

Every number is a function of these alone, so training that starts at epoch 3 sees what training
from epoch 0 sees from its fourth epoch on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from kpipe.data.loading.decoding import ImageSize, height_and_width
from kpipe.data.loading.epochs import draw_photos, in_batches, mixing_seed, photos_per_epoch
from kpipe.data.loading.fetching import Fetch, fetch_decoded, fetch_files
from kpipe.data.manifest import Manifest
from kpipe.errors import DataError

if TYPE_CHECKING:
    from kpipe.data.augmentation.augmenter import Augmenter
    from kpipe.data.augmentation.mixing import Mixer
    from kpipe.data.balancing.sampling import Sampling

__all__ = ["TrainingOptions", "dataset", "steps"]

_Batch = tuple[tf.Tensor, ...]
_PARALLEL = tf.data.AUTOTUNE


@dataclass(frozen=True)
class TrainingOptions:
    """How the photos are drawn, shuffled and changed, and where in the training to begin.

    Args:
        seed: of every draw, in [-2**63, 2**63).
        augmenter: changes each photo; none without it.
        first_epoch: epochs that are over, counted from 0.
        sampling: which photos an epoch shows, some of them more than once; each once without it.
        mixer: mixes the photos of a batch and their labels, which become float32
            (batch, classes).
        class_weight: {class index: factor in the loss}. The batches then have a third item, what
            Keras calls sample weights; `fit` must not be given the weights too.

    Raises:
        DataError: a seed or epoch out of range.
    """

    seed: int = 0
    augmenter: Augmenter | None = None
    first_epoch: int = 0
    sampling: Sampling | None = None
    mixer: Mixer | None = None
    class_weight: Mapping[int, float] | None = None

    def __post_init__(self) -> None:
        for name, low in (("seed", -(2**63)), ("first_epoch", 0)):
            value = getattr(self, name)
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if not whole or not low <= value < 2**63:
                raise DataError(
                    f"{name}={value!r} is out of its range",
                    expected=f"a whole number of at least {low} and below 2**63",
                )


def steps(
    manifest: Manifest, split: str, batch_size: int = 32, sampling: Sampling | None = None
) -> int:
    """Batches of one epoch, the last of which may be smaller.

    Raises:
        DataError: no such split, an empty one, or no batch size.
    """
    photos = photos_per_epoch(manifest.labels(split), sampling)
    return -(-photos // _checked(batch_size))


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
    """Batches of one split.

    Args:
        manifest: the photos, split.
        split: "train", "validation" or "test".
        image_size: pixels, one number for a square or (height, width). May be left out with
            `images`.
        batch_size: photos in a batch; the last of an epoch may hold fewer, none holds two epochs.
        images: what `decode(manifest, ...)` returned, or any (photos, height, width, 3) uint8 array
            in the order of `manifest.table`; only the rows of a batch are read at a time. Without
            it, files are decoded as they are needed, in every epoch; JPEG by TensorFlow, which
            gives the pixels of `decode` to one level of 255.
        training: shuffled, endless batches, to use with `steps_per_epoch=steps(...)`. Without it,
            one pass in the manifest's order, never augmented.
        one_hot: labels as float32 (batch, classes), as a mixer makes them.
        background: a CSS color, under transparent pixels of files.

    Returns:
        A dataset of (images, labels): float32 in [0, 255] (batch, height, width, 3), and class
        indices, int32 (batch,), or as `one_hot` and `training` say.

    Raises:
        DataError: an empty split, no size, no such color, images that do not belong to the
            manifest, or class weights for other classes than its own.
    """
    rows, size = manifest.rows(split), _size(manifest, image_size, images)
    batch_size, sampling = _checked(batch_size), training.sampling if training else None
    count = photos_per_epoch(manifest.labels(split), sampling)
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
    made = _mapped(batches.enumerate(), finish)
    known = length if training is None else tf.data.INFINITE_CARDINALITY
    return made.apply(tf.data.experimental.assert_cardinality(known)).prefetch(tf.data.AUTOTUNE)


def _mapped(data: tf.data.Dataset, function: Callable[..., Any]) -> tf.data.Dataset:
    return data.map(function, num_parallel_calls=_PARALLEL, deterministic=True)


def _with_images(data: tf.data.Dataset, fetch: Fetch) -> tf.data.Dataset:
    return _mapped(data, lambda photos: {**photos, "image": fetch(photos["place"])})


def _finish(
    manifest: Manifest, split: str, training: TrainingOptions, one_hot: bool, steps_per_epoch: int
) -> Callable[[tf.Tensor, dict[str, tf.Tensor]], _Batch]:
    """What makes a numbered batch of photos what `fit` sees."""
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
    """Of each class, (classes,) float32."""
    if training.class_weight is None:
        return None
    given, wanted = set(training.class_weight), set(range(classes))
    if given != wanted:
        raise DataError(
            "the class weights are not those of the manifest's classes",
            expected=f"a weight for each index of 0 to {classes - 1}",
            received=f"without {sorted(wanted - given)}, strange {sorted(given - wanted, key=str)}",
            fix="take them from kpipe.data.class_weight(manifest.labels('train'))",
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
    """Images, labels and weights of a mixed batch.

    Cross-entropy is linear in the label. So a photo mixed of `a` and `b` has the loss
    `share * w_a * CE(a) + (1 - share) * w_b * CE(b)` exactly, if `w_a` times the one-hot label of
    `a` is mixed with that of `b`, and the sum of the mixed label becomes the weight.
    """
    if weight is None:
        return *mixer(images, labels, seed), None
    images, labels = mixer(images, labels * weight[:, None], seed)
    weight = tf.reduce_sum(labels, -1)
    return images, tf.math.divide_no_nan(labels, weight[:, None]), weight


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
