"""Random changes of photos that preserve their labels.

    Augmenter := geometry   flip -> rotate -> translate -> zoom -> crop
              -> color      brightness -> contrast -> saturation -> hue -> channel_shuffle
              -> filters    blur -> noise -> jpeg
              -> policies   rand_augment -> aug_mix
              -> occlusion  erase -> grid_mask
    draw of an operation := function of (seed of the photo, the operation)

There is no state, so a parallel map gives the same photos whatever its threads do, and the strength
of one operation does not affect the draws of another. Geometry and color, but not channel_shuffle,
are applied to the whole batch, the others to one photo at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import tensorflow as tf

from kpipe.data.augmentation.color import Color, channel_shuffle
from kpipe.data.augmentation.filters import Operation, blur, jpeg, noise
from kpipe.data.augmentation.geometry import Geometry
from kpipe.data.augmentation.occlusion import erase, grid_mask
from kpipe.data.augmentation.policies import aug_mix, rand_augment
from kpipe.data.augmentation.stateless_random import seed_of, uniforms
from kpipe.data.augmentation.strengths import FLIPS, STRENGTHS, Flip, invalid_strengths
from kpipe.errors import DataError, nearest
from kpipe.wrong_kinds import names_wrong_kinds_of_fields

__all__ = ["Augmenter"]

# Applied to one photo at a time, in this order.
_OPERATIONS: Mapping[str, Callable[[float], Operation]] = {
    "channel_shuffle": channel_shuffle,
    "blur": blur,
    "noise": noise,
    "jpeg": jpeg,
    "rand_augment": rand_augment,
    "aug_mix": aug_mix,
    "erase": erase,
    "grid_mask": grid_mask,
}
_NUMBERS = (*Geometry.NUMBERS, *Color.NUMBERS)
# Hue moves the whole palette: a tenth of the wheel at full strength keeps a red shirt red.
_HUE = 0.1


@names_wrong_kinds_of_fields
@dataclass(frozen=True)
class Augmenter:
    """Random changes of photos, each with a strength; all are off by default.

    Args:
        flip: "horizontal", "vertical", "horizontal_and_vertical" (drawn separately) or "".
        rotate: largest rotation either way, as a fraction of a full turn, in [0, 0.5]. Beyond its
            edges, a photo continues as its mirror image.
        translate: largest shift either way, as a fraction of each side, in [0, 0.5].
        zoom: the sides of the visible part are multiplied by a number in [1 - zoom, 1 + zoom],
            aspect kept; in [0, 0.9].
        crop: smallest fraction of each side that a random window keeps, in [0.1, 1]; 1 is off. The
            window is resized to the size of the photo, aspect kept.
        brightness: largest shift either way, as a fraction of 255, in [0, 1].
        contrast: the contrast is multiplied by a number in [1 - contrast, 1 + contrast];
            in [0, 1].
        color: saturation and hue in one number, in [0, 1]: `saturation=color, hue=color / 10`.
        saturation: the saturation is multiplied by a number in [1 - saturation, 1 + saturation];
            in [0, 1].
        hue: largest rotation either way, as a fraction of the color wheel, in [0, 0.5].
        channel_shuffle: probability of reordering red, green and blue; in [0, 1].
        blur: probability of a Gaussian blur with a standard deviation between 0.1 and 1.2 pixels
            along each axis; in [0, 1].
        noise: largest standard deviation of Gaussian noise, as a fraction of 255; in [0, 1]. Each
            photo gets a standard deviation between 0 and this.
        jpeg: lowest quality of JPEG compression, in [1, 100]; each photo gets a quality between
            this and 100, which is off.
        rand_augment: magnitude of RandAugment, two random operations in sequence, as a fraction of
            the largest in the paper; in [0, 1].
        aug_mix: severity of AugMix, three chains of random operations mixed with the photo, as a
            fraction of the largest in the paper; in [0, 1].
        erase: probability of a grey rectangle over 2 to 33 % of the photo; in [0, 1].
        grid_mask: probability of a grid of grey squares over a quarter of the photo; in [0, 1].

    Raises:
        DataError: if values are out of range, or `color` is combined with `saturation` or `hue`,
            naming each.

    Example:
        >>> import numpy as np
        >>> import tensorflow as tf
        >>> from kpipe.data import Augmenter
        >>> augmenter = Augmenter(flip="horizontal", rotate=0.05, brightness=0.2)
        >>> images = tf.constant(np.full((2, 32, 32, 3), 128, np.uint8))
        >>> seeds = tf.constant([[7, 1], [7, 2]], tf.int64)
        >>> tuple(augmenter(images, seeds).shape)
        (2, 32, 32, 3)
    """

    flip: Flip = ""
    rotate: float = 0.0
    translate: float = 0.0
    zoom: float = 0.0
    crop: float = 1.0
    brightness: float = 0.0
    contrast: float = 0.0
    color: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    channel_shuffle: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    jpeg: float = 100.0
    rand_augment: float = 0.0
    aug_mix: float = 0.0
    erase: float = 0.0
    grid_mask: float = 0.0

    def __post_init__(self) -> None:
        errors = invalid_strengths(self, STRENGTHS)
        if self.flip not in FLIPS:
            errors.append(f"flip={self.flip!r}: {nearest(self.flip, filter(None, FLIPS))}")
        parts = [f"{name}={getattr(self, name)!r}" for name in ("saturation", "hue")
                 if getattr(self, name)]  # fmt: skip
        if self.color and parts:
            errors.append(
                f"color={self.color!r} with {' and '.join(parts)}: color sets both, write color=0"
            )
        if errors:
            raise DataError("invalid augmentation", received="\n    ".join(errors))
        # Created now: a Keras layer creates a variable (unused here), which tracing forbids.
        _ = self._operations

    @cached_property
    def _operations(self) -> dict[str, Operation]:
        return {
            name: operation(getattr(self, name))
            for name, operation in _OPERATIONS.items()
            if getattr(self, name) != STRENGTHS[name].off
        }

    def scaled(self, factor: float) -> Augmenter:
        """Return an augmenter with every strength scaled and clipped to its range.

        Args:
            factor: 0 turns all but the flip off, 1 changes nothing.

        Raises:
            DataError: if the factor is negative or not finite.
        """
        if not math.isfinite(factor) or factor < 0:
            raise DataError(f"an augmenter cannot be scaled by {factor!r}", expected="at least 0")
        scaled = {}
        for name, strength in STRENGTHS.items():
            value = strength.off + (getattr(self, name) - strength.off) * factor
            scaled[name] = min(max(value, strength.low), strength.high)
        return replace(self, **scaled)

    def __call__(self, images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """Return the changed photos; a pure function of its arguments.

        Args:
            images: (batch, height, width, 3) in [0, 255], uint8 or float; or one photo without
                the batch axis. Height and width must be static when a graph is traced.
            seeds: a seed for each photo, (batch, 2) int32 or int64; or (2,) for one photo.

        Returns:
            Photos of the shape, type and range of `images`; integer types are rounded.
        """
        if self == _NOTHING:
            return images
        if images.shape.rank == 3:
            return self(images[None], seeds[None])[0]
        seeds = tf.cast(seeds, tf.int64)
        drawn = uniforms(_NUMBERS, seeds)
        changed = tf.cast(images, tf.float32)
        changed = self._geometry(changed, drawn)
        changed = self._color(changed, drawn)
        if self._operations:
            changed = self._each_photo(changed, seeds)
        if images.dtype.is_integer:
            changed = tf.round(changed)
        return tf.ensure_shape(tf.cast(changed, images.dtype), images.shape)

    @property
    def _geometry(self) -> Geometry:
        return Geometry(self.flip, self.rotate, self.translate, self.zoom, self.crop)

    @property
    def _color(self) -> Color:
        saturation, hue = self.saturation + self.color, self.hue + _HUE * self.color
        return Color(self.brightness, self.contrast, saturation, hue)

    def _each_photo(self, images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        def change(pair: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            photo, seed = pair
            for name, operation in self._operations.items():
                changed = operation(photo, seed_of(name, seed))
                photo = tf.ensure_shape(changed, photo.shape)
            return photo

        signature = tf.TensorSpec(images.shape[1:], tf.float32)
        return tf.map_fn(change, (images, seeds), fn_output_signature=signature)


_NOTHING = Augmenter()
