"""Changes of one photo that are not linear: what a lens, a sensor or a file format does to it.

    operation := (photo (height, width, 3) float32 in [0, 255], seed (2,) int64) -> photo

A photo at a time stays in the processor's cache, and one that is left alone costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from kpipe.data.augmentation.stateless_random import Draws, between, seed_of

__all__ = ["Operation", "blur", "compress", "layered", "noise", "shuffle_channels", "sometimes"]

Operation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

_BLUR_KERNEL = 5
_BLUR_SIGMA = (0.1, 1.2)


def sometimes(probability: float, operation: Operation) -> Operation:
    """The operation for a share of the photos, the others untouched."""

    def change(photo: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        coin = tf.random.stateless_uniform((), seed_of("coin", seed))
        return tf.cond(coin < probability, lambda: operation(photo, seed), lambda: photo)

    return change


def layered(layer: keras.layers.Layer, edge: int = 0) -> Operation:
    """What a Keras layer does, drawn from the photo's seed.

    Args:
        layer: one of Keras' random image layers, made now: it holds a variable (never used here),
            which a traced function must not make.
        edge: pixels mirrored around the photo meanwhile, for layers that look beyond its edge and
            would find black there.
    """
    mirrored = [[0, 0], [edge, edge], [edge, edge], [0, 0]]

    def change(photo: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        images = tf.pad(photo[None], mirrored, "SYMMETRIC") if edge else photo[None]
        drawn = layer.get_random_transformation(images, seed=Draws(seed))
        changed = layer.transform_images(images, drawn)[0]
        return changed[edge:-edge, edge:-edge] if edge else changed

    return change


def blur(probability: float) -> Operation:
    """A Gaussian blur of a standard deviation between 0.1 and 1.2 pixels, for a share of photos."""
    layer = keras.layers.RandomGaussianBlur(
        # A single number would mean a probability drawn between 0 and it.
        (1.0, 1.0),
        kernel_size=_BLUR_KERNEL,
        sigma=_BLUR_SIGMA,
        seed=0,
        dtype="float32",
    )
    return sometimes(probability, layered(layer, edge=_BLUR_KERNEL // 2))


def noise(largest: float) -> Operation:
    """Gaussian noise, of a standard deviation drawn from 0 to `largest` times 255."""

    def change(photo: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        deviation = 255 * largest * tf.random.stateless_uniform((), seed_of("deviation", seed))
        drawn = tf.random.stateless_normal(tf.shape(photo), seed)
        return tf.clip_by_value(photo + deviation * drawn, 0.0, 255.0)

    return change


def compress(lowest: float) -> Operation:
    """JPEG's loss, at a quality drawn from `lowest` to 100."""

    def change(photo: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        drawn = between(lowest, 100.0, tf.random.stateless_uniform((), seed))
        # Of other types, TensorFlow expects them in [0, 1].
        pixels = tf.cast(tf.round(photo), tf.uint8)
        pixels = tf.image.adjust_jpeg_quality(pixels, tf.cast(tf.round(drawn), tf.int32))
        return tf.cast(pixels, tf.float32)

    return change


def shuffle_channels(probability: float) -> Operation:
    """Red, green and blue in another order, for a share of photos; KerasCV's layer."""
    import keras_cv

    layer = keras_cv.layers.ChannelShuffle(groups=3, seed=1)

    def change(photo: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        # The layer draws for a batch; its indices are ours to give.
        order = tf.argsort(tf.random.stateless_uniform((1, 3), seed))
        return layer.augment_images(photo[None], order)[0]

    return sometimes(probability, change)
