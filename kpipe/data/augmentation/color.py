"""Color augmentations: brightness, contrast, saturation, hue, color, channel_shuffle.

    color := brightness -> contrast -> saturation -> hue
    pixel -> K (c pixel + (1 - c) mean + d), clipped to [0, 255]
        d brightness    c contrast    K = Q^-1 H(h) diag(1, s, s) Q, saturation s and hue h
        Q from RGB to luma and two axes of color (YIQ), H a rotation of these two by h

All four are linear (Haeberli, "Matrix Operations for Image Processing", 1993), so each photo is
multiplied by one matrix. The layers of Keras and the functions of `tf.image` work in HSV, which is
two to ten times slower, most of all on photos full of detail.

The field `color` of `Augmenter` adds to saturation, and a tenth of it to hue. Channel shuffle is
applied to one photo at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import tensorflow as tf

from kpipe.data.augmentation.filters import Operation, sometimes
from kpipe.data.augmentation.stateless_random import between

__all__ = ["Color", "channel_shuffle"]

# The rows are luma (ITU-R BT.601), in-phase and quadrature (NTSC). The last two sum to 0, so that
# grey has no color; those of `tf.image.rgb_to_yiq` only nearly do.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


@dataclass(frozen=True)
class Color:
    """Brightness, contrast, saturation and hue of a batch, in one multiplication.

    Args:
        brightness: largest shift either way, as a fraction of 255.
        contrast: the distance from the photo's mean color is multiplied by a number in
            [1 - contrast, 1 + contrast].
        saturation: the distance from grey of the same luma is multiplied by a number in
            [1 - saturation, 1 + saturation].
        hue: largest rotation either way, as a fraction of the color wheel; luma is kept.
    """

    NUMBERS: ClassVar = ("brightness", "contrast", "saturation", "hue")

    brightness: float
    contrast: float
    saturation: float
    hue: float

    def __call__(self, images: tf.Tensor, drawn: dict[str, tf.Tensor]) -> tf.Tensor:
        """Return the changed photos.

        Args:
            images: (batch, height, width, 3) float32 in [0, 255].
            drawn: uniform numbers for each of `NUMBERS`, (batch,) in [0, 1).

        Returns:
            (batch, height, width, 3) float32 in [0, 255].
        """
        if not (self.brightness or self.contrast or self.saturation or self.hue):
            return images
        shape = tf.shape(images)
        pixels = tf.reshape(images, (shape[0], -1, 3))
        light = 255 * between(-self.brightness, self.brightness, drawn["brightness"])
        contrast = between(1 - self.contrast, 1 + self.contrast, drawn["contrast"])
        light, contrast = light[:, None, None], contrast[:, None, None]
        mean = tf.reduce_mean(pixels, axis=1, keepdims=True)
        matrix = self._matrix(drawn)
        pixels = tf.matmul(pixels, contrast * matrix)
        pixels += tf.matmul((1 - contrast) * mean + light, matrix)
        return tf.reshape(tf.clip_by_value(pixels, 0.0, 255.0), shape)

    def _matrix(self, drawn: dict[str, tf.Tensor]) -> tf.Tensor:
        """The transposed K of each photo, for pixels in rows: (batch, 3, 3)."""
        saturation = between(1 - self.saturation, 1 + self.saturation, drawn["saturation"])
        angle = 2 * math.pi * between(-self.hue, self.hue, drawn["hue"])
        cos, sin = saturation * tf.cos(angle), saturation * tf.sin(angle)
        zero, one = tf.zeros_like(angle), tf.ones_like(angle)
        rotation = tf.stack([one, zero, zero, zero, cos, sin, zero, -sin, cos], axis=1)
        to_yiq = tf.constant(_YIQ.T, tf.float32)
        to_rgb = tf.constant(np.linalg.inv(_YIQ).T, tf.float32)
        return to_yiq @ tf.reshape(rotation, (-1, 3, 3)) @ to_rgb


def channel_shuffle(probability: float) -> Operation:
    """Reorder red, green and blue with KerasCV's layer, with a probability."""
    import keras_cv

    layer = keras_cv.layers.ChannelShuffle(groups=3, seed=1)

    def change(photo: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        # The layer would draw for a batch; it accepts indices instead.
        order = tf.argsort(tf.random.stateless_uniform((1, 3), seed))
        return layer.augment_images(photo[None], order)[0]

    return sometimes(probability, change)
