"""Filters, applied to one photo at a time: blur, noise, jpeg.

    operation := (photo (height, width, 3) float32 in [0, 255], seed (2,) int64) -> photo

One photo fits into the processor's cache, and photos that are not changed cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from kpipe.data.augmentation.stateless_random import Draws, between, seed_of

__all__ = ["Operation", "blur", "from_layer", "jpeg", "noise", "sometimes"]

Operation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

_BLUR_KERNEL = 5
_BLUR_SIGMA = (0.1, 1.2)


def sometimes(probability: float, operation: Operation) -> Operation:
    """Apply an operation with a probability."""

    def change(photo: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        coin = tf.random.stateless_uniform((), seed_of("coin", seed))
        return tf.cond(coin < probability, lambda: operation(photo, seed), lambda: photo)

    return change


def from_layer(layer: keras.layers.Layer, edge: int = 0) -> Operation:
    """Return the operation of a Keras layer, drawn from the photo's seed.

    Args:
        layer: a random image layer of Keras, created outside of a traced function, since it creates
            a variable (unused here).
        edge: pixels to pad the photo with as its mirror image, for layers that read beyond its
            edges and would find black there.
    """
    mirrored = [[0, 0], [edge, edge], [edge, edge], [0, 0]]

    def change(photo: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        images = tf.pad(photo[None], mirrored, "SYMMETRIC") if edge else photo[None]
        drawn = layer.get_random_transformation(images, seed=Draws(seed))
        changed = layer.transform_images(images, drawn)[0]
        return changed[edge:-edge, edge:-edge] if edge else changed

    return change


def blur(probability: float) -> Operation:
    """Blur with a standard deviation between 0.1 and 1.2 pixels, with a probability."""
    layer = keras.layers.RandomGaussianBlur(
        # A single number would be the upper bound of a random probability.
        (1.0, 1.0),
        kernel_size=_BLUR_KERNEL,
        sigma=_BLUR_SIGMA,
        seed=0,
        dtype="float32",
    )
    return sometimes(probability, from_layer(layer, edge=_BLUR_KERNEL // 2))


def noise(largest: float) -> Operation:
    """Add Gaussian noise with a standard deviation drawn from 0 to `largest` times 255."""

    def change(photo: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        deviation = 255 * largest * tf.random.stateless_uniform((), seed_of("deviation", seed))
        drawn = tf.random.stateless_normal(tf.shape(photo), seed)
        return tf.clip_by_value(photo + deviation * drawn, 0.0, 255.0)

    return change


def jpeg(lowest: float) -> Operation:
    """Add the artifacts of JPEG compression with a quality drawn from `lowest` to 100."""

    def change(photo: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        drawn = between(lowest, 100.0, tf.random.stateless_uniform((), seed))
        # TensorFlow expects floats in [0, 1].
        pixels = tf.cast(tf.round(photo), tf.uint8)
        pixels = tf.image.adjust_jpeg_quality(pixels, tf.cast(tf.round(drawn), tf.int32))
        return tf.cast(pixels, tf.float32)

    return change
