"""Random changes of photos that leave their labels true.

    Augmenter := geometry   flip -> rotate -> translate -> zoom -> crop
              -> color      brightness -> contrast -> saturation -> hue
              -> filters    channel_shuffle -> blur -> noise -> jpeg
              -> policies   rand_augment -> aug_mix
              -> occlusion  erase -> grid_mask
    draw of an operation := function of (seed of the photo, the operation)

No state, so a parallel map gives the same photos whatever its threads do, and one operation's
strength never moves another's draw. Geometry and color are worked out for the whole batch, the
others photo by photo.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import tensorflow as tf

from kpipe.data.augmentation.color import Color
from kpipe.data.augmentation.filters import Operation, blur, compress, noise, shuffle_channels
from kpipe.data.augmentation.geometry import Geometry
from kpipe.data.augmentation.occlusion import erase, mask_grid
from kpipe.data.augmentation.policies import aug_mix, rand_augment
from kpipe.data.augmentation.stateless_random import seed_of, uniforms
from kpipe.data.augmentation.strengths import FLIPS, STRENGTHS, Flip, invalid_strengths
from kpipe.errors import DataError, nearest

__all__ = ["Augmenter"]

# Of one photo, in the order of their work.
_OPERATIONS: Mapping[str, Callable[[float], Operation]] = {
    "channel_shuffle": shuffle_channels,
    "blur": blur,
    "noise": noise,
    "jpeg": compress,
    "rand_augment": rand_augment,
    "aug_mix": aug_mix,
    "erase": erase,
    "grid_mask": mask_grid,
}
_NUMBERS = (*Geometry.NUMBERS, *Color.NUMBERS)
# Hue moves the whole palette: a tenth of the wheel at full strength keeps a red shirt red.
_HUE = 0.1


@dataclass(frozen=True)
class Augmenter:
    """Random changes of photos, each a strength; all are off unless asked for.

    Args:
        flip: "horizontal", "vertical", "horizontal_and_vertical" (each with its own coin) or "".
        rotate: largest turn either way, as a share of a full turn, in [0, 0.5]. What comes into
            view beyond an edge is the photo's mirror image.
        translate: largest shift either way, as a share of each side, in [0, 0.5].
        zoom: largest change of the part in view, whose sides are multiplied by a number in
            [1 - zoom, 1 + zoom], aspect kept; in [0, 0.9].
        crop: smallest share of each side that a random window keeps, in [0.1, 1]; 1 is off. The
            window is resized to the photo's own size, aspect kept.
        brightness: largest shift either way, as a share of the range of 255, in [0, 1].
        contrast: the contrast is multiplied by a number in [1 - contrast, 1 + contrast];
            in [0, 1].
        color: saturation and hue in one number, in [0, 1]: `saturation=color, hue=color / 10`.
        saturation: the saturation is multiplied by a number in [1 - saturation, 1 + saturation];
            in [0, 1].
        hue: largest turn either way, as a share of the color wheel, in [0, 0.5].
        channel_shuffle: probability of red, green and blue in another order; in [0, 1].
        blur: probability of a Gaussian blur, of a standard deviation between 0.1 and 1.2 pixels
            along each axis; in [0, 1].
        noise: largest standard deviation of Gaussian noise, as a share of 255; in [0, 1]. Each
            photo has its own, from 0 on.
        jpeg: lowest quality of JPEG compression, in [1, 100]; each photo has its own, up to 100,
            which is off.
        rand_augment: magnitude of RandAugment, two random operations in a row, as a share of the
            paper's largest; in [0, 1].
        aug_mix: severity of AugMix, three chains of random operations mixed with the photo, as a
            share of the paper's largest; in [0, 1].
        erase: probability of a grey rectangle over 2 to 33 % of the photo; in [0, 1].
        grid_mask: probability of a grid of grey squares over a quarter of the photo; in [0, 1].

    Raises:
        DataError: a value out of its range, or `color` beside `saturation` or `hue`; each is named.
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
        wrong = invalid_strengths(self, STRENGTHS)
        if self.flip not in FLIPS:
            wrong.append(f"flip={self.flip!r}: {nearest(str(self.flip), filter(None, FLIPS))}")
        beside = [f"{name}={getattr(self, name)!r}" for name in ("saturation", "hue")
                  if getattr(self, name)]  # fmt: skip
        if self.color and beside:
            wrong.append(
                f"color={self.color!r} beside {' and '.join(beside)}: "
                "color is both in one number, write color=0"
            )
        if wrong:
            raise DataError("an augmentation is out of its range", received="\n    ".join(wrong))
        # Made now: a layer makes a variable (never used here), which a traced function must not.
        _ = self._operations

    @cached_property
    def _operations(self) -> dict[str, Operation]:
        asked = {name: getattr(self, name) for name in _OPERATIONS}
        return {
            name: _OPERATIONS[name](value)
            for name, value in asked.items()
            if value != STRENGTHS[name].off
        }

    def scaled(self, factor: float) -> Augmenter:
        """A stronger or weaker one, every strength moved from off and held in its range.

        Args:
            factor: 0 turns all but the flip off, 1 changes nothing.

        Raises:
            DataError: a factor that is not a number of at least 0.
        """
        if not math.isfinite(factor) or factor < 0:
            raise DataError(f"an augmenter cannot be scaled by {factor!r}", expected="at least 0")
        moved = {
            name: strength.off + (getattr(self, name) - strength.off) * factor
            for name, strength in STRENGTHS.items()
        }
        held = {
            name: min(max(value, STRENGTHS[name].low), STRENGTHS[name].high)
            for name, value in moved.items()
        }
        return replace(self, **held)

    def __call__(self, images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """The changed photos; a pure function of its arguments, each photo of its own seed.

        Args:
            images: (batch, height, width, 3) in [0, 255], uint8 or float; or one photo without
                the batch. Height and width must be known where a graph is traced.
            seeds: (batch, 2) int32 or int64; or (2,) for one photo.

        Returns:
            The shape, type and range of `images`; whole numbers are rounded.
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
            changed = self._one_by_one(changed, seeds)
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

    def _one_by_one(self, images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        def change(pair: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            photo, seed = pair
            for name, operation in self._operations.items():
                changed = operation(photo, seed_of(name, seed))
                photo = tf.ensure_shape(changed, photo.shape)
            return photo

        signature = tf.TensorSpec(images.shape[1:], tf.float32)
        return tf.map_fn(change, (images, seeds), fn_output_signature=signature)


_NOTHING = Augmenter()
