"""Random changes of a photo that leave its label true.

    Augmenter := flip -> rotate -> crop -> brightness -> contrast -> color -> blur
    draw of an operation := function of (seed of the photo, name of the operation)

`tf.image.stateless_random_*` draw from a seed by nature and are the fastest per photo; rotation
and blur are Keras layers, made to draw from that same seed. No state, so a parallel map gives the
same photos whatever its threads do, and one operation's strength never moves another's draw.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace
from functools import cached_property

import keras
import tensorflow as tf

from kpipe.errors import DataError, nearest

__all__ = ["Augmenter"]

_FLIPS = ("", "horizontal", "vertical", "horizontal_and_vertical")
_RANGES = {
    "rotate": (0.0, 0.5),
    "brightness": (0.0, 1.0),
    "contrast": (0.0, 1.0),
    "color": (0.0, 1.0),
    "blur": (0.0, 1.0),
    "crop": (0.1, 1.0),
}
# Hue moves the whole palette: a tenth of the wheel at full strength keeps a red shirt red.
_HUE = 0.1
_BLUR_KERNEL = 5
_BLUR_SIGMA = (0.1, 1.2)


@dataclass(frozen=True)
class Augmenter:
    """Random changes of one photo, each a strength that 0 (for `crop`, 1) turns off.

    Args:
        flip: "horizontal", "vertical", "horizontal_and_vertical" (each with its own coin) or "".
        rotate: largest turn either way, as a share of a full turn, in [0, 0.5]. Corners are filled
            by reflection.
        brightness: largest shift either way, as a share of the range of 255, in [0, 1].
        contrast: the contrast is multiplied by a number in [1 - contrast, 1 + contrast];
            in [0, 1].
        color: the saturation is multiplied by a number in [1 - color, 1 + color], and the hue is
            turned by up to a tenth of `color` of the wheel either way; in [0, 1].
        blur: probability of a Gaussian blur, of a standard deviation between 0.1 and 1.2 pixels;
            in [0, 1].
        crop: smallest share of each side that a random window keeps, in [0.1, 1]; the window is
            resized to the photo's own size, aspect kept.

    Raises:
        DataError: a value out of its range; each is named.
    """

    flip: str = ""
    rotate: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    color: float = 0.0
    blur: float = 0.0
    crop: float = 1.0

    def __post_init__(self) -> None:
        wrong = []
        if self.flip not in _FLIPS:
            wrong.append(f"flip={self.flip!r}: {nearest(str(self.flip), filter(None, _FLIPS))}")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not low <= value <= high:
                wrong.append(f"{name}={value!r}: a number from {low:g} to {high:g}")
        if wrong:
            raise DataError(
                "an augmentation is out of its range",
                received="\n    ".join(wrong),
            )
        # Made now: a layer makes a variable (never used here), which a traced function must not.
        _ = self._rotation, self._blurring

    @cached_property
    def _rotation(self) -> keras.layers.RandomRotation:
        return keras.layers.RandomRotation(
            self.rotate, fill_mode="reflect", seed=0, dtype="float32", name="rotate"
        )

    @cached_property
    def _blurring(self) -> keras.layers.RandomGaussianBlur:
        return keras.layers.RandomGaussianBlur(
            # A single number would mean a probability drawn between 0 and it.
            (self.blur, self.blur),
            kernel_size=_BLUR_KERNEL,
            sigma=_BLUR_SIGMA,
            seed=0,
            dtype="float32",
            name="blur",
        )

    def scaled(self, factor: float) -> Augmenter:
        """A stronger or weaker one, every strength multiplied and held in its range.

        Args:
            factor: 0 turns all but the flip off, 1 changes nothing.

        Raises:
            DataError: a factor that is not a number of at least 0.
        """
        if not math.isfinite(factor) or factor < 0:
            raise DataError(f"an augmenter cannot be scaled by {factor!r}", expected="at least 0")
        strengths = {
            name: min(getattr(self, name) * factor, high)
            for name, (_, high) in _RANGES.items()
            if name != "crop"
        }
        crop = max(1.0 - (1.0 - self.crop) * factor, _RANGES["crop"][0])
        return replace(self, **strengths, crop=crop)

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """One changed photo; a pure function of its arguments.

        Args:
            image: (height, width, 3) float32 in [0, 255].
            seed: (2,) int32 or int64.

        Returns:
            (height, width, 3) float32 in [0, 255].
        """
        # Stable numbers, unlike hash(): the same draws in every process.
        seeds = {
            name: tf.random.experimental.stateless_fold_in(
                tf.cast(seed, tf.int64), tf.constant(zlib.crc32(name.encode()), tf.int64)
            )
            for name in ("left_right", "up_down", "saturation", "hue", *_RANGES)
        }
        image = self._moved(image, seeds)
        image = self._colored(image, seeds)
        return self._blurred(image, seeds["blur"]) if self.blur else image

    def _moved(self, image: tf.Tensor, seeds: dict[str, tf.Tensor]) -> tf.Tensor:
        if self.flip in ("horizontal", "horizontal_and_vertical"):
            image = tf.image.stateless_random_flip_left_right(image, seeds["left_right"])
        if self.flip in ("vertical", "horizontal_and_vertical"):
            image = tf.image.stateless_random_flip_up_down(image, seeds["up_down"])
        if self.rotate:
            drawn = self._rotation.get_random_transformation(
                image[None], seed=_Draws(seeds["rotate"])
            )
            image = self._rotation.transform_images(image[None], drawn)[0]
        if self.crop < 1:
            image = _cropped(image, self.crop, seeds["crop"])
        return image

    def _colored(self, image: tf.Tensor, seeds: dict[str, tf.Tensor]) -> tf.Tensor:
        if self.brightness:
            image = tf.image.stateless_random_brightness(
                image, 255.0 * self.brightness, seeds["brightness"]
            )
            image = tf.clip_by_value(image, 0.0, 255.0)
        if self.contrast:
            image = tf.image.stateless_random_contrast(
                image, 1.0 - self.contrast, 1.0 + self.contrast, seeds["contrast"]
            )
            image = tf.clip_by_value(image, 0.0, 255.0)
        if self.color:
            image = tf.image.stateless_random_saturation(
                image, 1.0 - self.color, 1.0 + self.color, seeds["saturation"]
            )
            image = tf.image.stateless_random_hue(image, _HUE * self.color, seeds["hue"])
            image = tf.clip_by_value(image, 0.0, 255.0)
        return image

    def _blurred(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        layer = self._blurring
        drawn = layer.get_random_transformation(image[None], seed=_Draws(seed))
        edge = _BLUR_KERNEL // 2

        def blurred() -> tf.Tensor:
            # The layer pads with black, which would darken the borders.
            wide = tf.pad(image, [[edge, edge], [edge, edge], [0, 0]], "SYMMETRIC")
            return layer.transform_images(wide[None], drawn)[0, edge:-edge, edge:-edge]

        return tf.cond(drawn["should_apply_blur"][0], blurred, lambda: image)


class _Draws(keras.random.SeedGenerator):
    """Hands a Keras layer one fixed sequence of seeds.

    A `SeedGenerator` counts in a variable, which threads would race for; this one has none.
    """

    def __init__(self, seed: tf.Tensor) -> None:
        self._seed = seed
        self._drawn = 0

    def next(self, ordered: bool = True) -> tf.Tensor:
        self._drawn += 1
        return tf.random.experimental.stateless_fold_in(
            self._seed, tf.constant(self._drawn, tf.int64)
        )


def _cropped(image: tf.Tensor, smallest: float, seed: tf.Tensor) -> tf.Tensor:
    """A window of a random share of each side, at a random place, at the size of the photo.

    Keras has no layer for it: `RandomCrop` keeps one size, `RandomZoom` the center.
    """
    drawn = tf.random.stateless_uniform((3,), seed)
    share = smallest + (1.0 - smallest) * drawn[0]
    top, left = (1.0 - share) * drawn[1], (1.0 - share) * drawn[2]
    box = tf.stack([top, left, top + share, left + share])
    resized = tf.image.crop_and_resize(image[None], box[None], [0], tf.shape(image)[:2])[0]
    return tf.ensure_shape(resized, image.shape)
