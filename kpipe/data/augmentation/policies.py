"""RandAugment and AugMix: random operations, one after the other.

    RandAugment := 2 of 14 operations in a row                        (Cubuk et al. 2020)
    AugMix      := m photo + (1 - m) (w1 chain + w2 chain + w3 chain)  (Hendrycks et al. 2020)
    chain       := 1, 2 or 3 operations in a row, of the 9 that need no factor of color or light
    m ~ Beta(1, 1), w ~ Dirichlet(1, 1, 1)

The operations are Keras' layers. The composition is ours: the layers `RandAugment` and `AugMix`
choose once for a batch, from Python's generator or a state of their own, turn and shift one way
only, and work out every operation for the one that they keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import keras
import tensorflow as tf
from keras import layers

from kpipe.data.augmentation.filters import Operation, layered
from kpipe.data.augmentation.stateless_random import Draws, between

__all__ = ["aug_mix", "rand_augment"]

_OPERATIONS = 2
_CHAINS = 3
_DEPTH = 3


def rand_augment(magnitude: float) -> Operation:
    """Two operations in a row.

    Args:
        magnitude: of each, up to this share of the paper's largest.
    """
    chosen = [*_shapes(magnitude), *_lights(magnitude), lambda photo, seed: photo]

    def change(photo: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        indices = keras.random.randint((_OPERATIONS,), 0, len(chosen), seed=Draws(seed))
        return _chain(chosen, photo, indices, seed)

    return change


def aug_mix(severity: float) -> Operation:
    """A photo mixed with three chains of operations on it.

    Args:
        severity: of each operation, up to this share of the paper's largest.
    """
    chosen = [*_shapes(severity), lambda photo, seed: photo]

    def change(photo: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        draws, last = Draws(seed), len(chosen) - 1
        depths = keras.random.randint((_CHAINS, 1), 1, _DEPTH + 1, seed=draws)
        indices = keras.random.randint((_CHAINS, _DEPTH), 0, last, seed=draws)
        indices = tf.where(tf.range(_DEPTH) < depths, indices, last)
        weights = keras.random.gamma((_CHAINS,), 1.0, seed=draws)
        weights /= tf.reduce_sum(weights)
        own = keras.random.beta((), 1.0, 1.0, seed=draws)

        def add(mixed: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
            its = tf.random.experimental.stateless_fold_in(seed, number)
            return mixed + weights[number] * _chain(chosen, photo, indices[number], its)

        mixed = tf.foldl(add, tf.range(_CHAINS, dtype=tf.int64), initializer=tf.zeros_like(photo))
        return tf.clip_by_value(own * photo + (1 - own) * mixed, 0.0, 255.0)

    return change


def _chain(
    operations: Sequence[Operation], photo: tf.Tensor, indices: tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    """The operations of these indices in a row, each drawn from a seed of its own."""

    def step(photo: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        its = tf.random.experimental.stateless_fold_in(seed, number)
        return tf.switch_case(indices[number], [partial(one, photo, its) for one in operations])

    return tf.foldl(step, tf.range(tf.size(indices, tf.int64)), initializer=photo)


def _shapes(magnitude: float) -> list[Operation]:
    """The operations of both policies: shear, shift, turn, and the levels of each channel."""
    plain = {"seed": 0, "dtype": "float32"}
    shift, bits = 0.45 * magnitude, round(8 - 4 * magnitude)
    shear = (0.0, 0.3 * magnitude)
    made = [
        layers.RandomShear(x_factor=shear, **plain),
        layers.RandomShear(y_factor=shear, **plain),
        layers.RandomTranslation(0.0, shift, **plain),
        layers.RandomTranslation(shift, 0.0, **plain),
        layers.RandomRotation(30 / 360 * magnitude, **plain),
        layers.RandomPosterization((bits, 8), **plain),
        layers.AutoContrast(dtype="float32"),
        layers.Equalization(dtype="float32"),
    ]
    return [*map(layered, made), _solarize(magnitude)]


def _lights(magnitude: float) -> list[Operation]:
    """The operations of RandAugment alone, which change colors by a factor."""
    plain = {"seed": 0, "dtype": "float32"}
    factor = 0.9 * magnitude
    made = [
        layers.RandomBrightness(factor / 2, **plain),
        # A single number would mean a contrast that is only ever raised.
        layers.RandomContrast((factor, factor), **plain),
        layers.RandomColorDegeneration((-factor, factor), **plain),
    ]
    sharpness = layers.RandomSharpness((0.5 - factor / 2, 0.5 + factor / 2), **plain)
    return [*map(layered, made), layered(sharpness, edge=1)]


def _solarize(magnitude: float) -> Operation:
    layer = layers.Solarization(seed=0, dtype="float32")

    def change(photo: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        # Drawn here, as the layer takes the lower end of its range for one of [0, 1].
        threshold = between(256 * (1 - magnitude), 256.0, tf.random.stateless_uniform((), seed))
        drawn = {"additions": 0.0, "thresholds": threshold}
        return layer.transform_images(photo[None], drawn)[0]

    return change
