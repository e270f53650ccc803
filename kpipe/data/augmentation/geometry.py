"""Geometric augmentations, applied to a whole batch: flip, rotate, translate, zoom, crop.

    geometry := flip -> rotate -> translate -> zoom -> crop
    source position = c + F R(z (s p + o) + t), p the position in the result, relative to center c
        F flip    R rotation    t translation    z zoom    s, o size and offset of the crop

All five form one affine map, so a photo is resampled once. A sequence of Keras layers would
resample, and blur, the photo once for each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import keras
import tensorflow as tf

from kpipe.data.augmentation.stateless_random import between

__all__ = ["Geometry"]


@dataclass(frozen=True)
class Geometry:
    """Flip, rotation, translation, zoom and crop of a batch, in one resampling.

    Args:
        flip: "horizontal", "vertical", "horizontal_and_vertical" or "".
        rotate: largest rotation either way, as a fraction of a full turn.
        translate: largest shift either way, as a fraction of each side.
        zoom: the visible part of each side is multiplied by a number in [1 - zoom, 1 + zoom].
        crop: smallest fraction of each side that a window keeps.
    """

    NUMBERS: ClassVar = ("mirror", "upend", "turn", "right", "down", "zoom", "share", "left", "top")

    flip: str
    rotate: float
    translate: float
    zoom: float
    crop: float

    def __call__(self, images: tf.Tensor, drawn: dict[str, tf.Tensor]) -> tf.Tensor:
        """Return the changed photos.

        Args:
            images: (batch, height, width, 3) float32.
            drawn: uniform numbers for each of `NUMBERS`, (batch,) in [0, 1).

        Returns:
            (batch, height, width, 3) float32; beyond its edges, a photo continues as its mirror
            image.
        """
        if self.rotate or self.translate or self.zoom:
            return keras.ops.image.affine_transform(
                images, self._affine(tf.shape(images), drawn), fill_mode="reflect"
            )
        if self.flip or self.crop < 1:
            # The same map, restricted to boxes, is four times faster.
            indices = tf.range(tf.shape(images)[0])
            window = tf.image.crop_and_resize(
                images, self._boxes(drawn), indices, tf.shape(images)[1:3]
            )
            return tf.ensure_shape(window, images.shape)
        return images

    def _signs(self, drawn: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """-1 for flipped photos, else 1; for columns and for rows."""
        ones = tf.ones_like(drawn["mirror"])
        mirror = tf.where(drawn["mirror"] < 0.5, -ones, ones)
        upend = tf.where(drawn["upend"] < 0.5, -ones, ones)
        return (
            mirror if self.flip in ("horizontal", "horizontal_and_vertical") else ones,
            upend if self.flip in ("vertical", "horizontal_and_vertical") else ones,
        )

    def _affine(self, shape: tf.Tensor, drawn: dict[str, tf.Tensor]) -> tf.Tensor:
        """The first two rows of the matrix and two zeros: (batch, 8)."""
        mirror, upend = self._signs(drawn)
        angle = 2 * math.pi * between(-self.rotate, self.rotate, drawn["turn"])
        zoom = between(1 - self.zoom, 1 + self.zoom, drawn["zoom"])
        share = between(self.crop, 1.0, drawn["share"])
        height, width = tf.unstack(tf.cast(shape[1:3], tf.float32) - 1)
        # Offset of the window's center from that of the photo.
        x = zoom * (1 - share) * (drawn["left"] - 0.5) * width
        y = zoom * (1 - share) * (drawn["top"] - 0.5) * height
        # The content moves opposite to the window.
        x -= between(-self.translate, self.translate, drawn["right"]) * (width + 1)
        y -= between(-self.translate, self.translate, drawn["down"]) * (height + 1)
        cos, sin, size = tf.cos(angle), tf.sin(angle), zoom * share
        rows = []
        for sign, along, across, center in (
            (mirror, cos, -sin, width / 2),
            (upend, sin, cos, height / 2),
        ):
            a, b = sign * along, sign * across
            shift = center + a * x + b * y - size * (a * width + b * height) / 2
            rows += [size * a, size * b, shift]
        return tf.stack([*rows, tf.zeros_like(angle), tf.zeros_like(angle)], axis=1)

    def _boxes(self, drawn: dict[str, tf.Tensor]) -> tf.Tensor:
        """Top, left, bottom, right in [0, 1], swapped if flipped: (batch, 4)."""
        share = between(self.crop, 1.0, drawn["share"])
        edges = []
        for place, sign in zip(("top", "left"), reversed(self._signs(drawn)), strict=True):
            begin = (1 - share) * drawn[place]
            # A rounding error beyond the edge would give black pixels.
            end = tf.minimum(begin + share, 1.0 if self.crop == 1 else 1.0 - 1e-6)
            forward = sign > 0
            edges.append((tf.where(forward, begin, 1 - begin), tf.where(forward, end, 1 - end)))
        (top, bottom), (left, right) = edges
        return tf.stack([top, left, bottom, right], axis=1)
