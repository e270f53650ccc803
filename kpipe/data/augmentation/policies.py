"""Policies, sequences of random operations on one photo: rand_augment, aug_mix.

    rand_augment := 2 of 14 operations in sequence                      (Cubuk et al. 2020)
    aug_mix      := m photo + (1 - m) (w1 chain + w2 chain + w3 chain)  (Hendrycks et al. 2020)
    chain        := 1, 2 or 3 operations in sequence, out of 9 (without those of color and light)
    m ~ Beta(1, 1), w ~ Dirichlet(1, 1, 1)

The operations are Keras layers. Keras' layers `RandAugment` and `AugMix` are not used: they choose
once for a batch, from Python's generator or their own state, rotate and shift in one direction
only, and compute every operation to keep one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import keras
import tensorflow as tf
from keras import layers

from kpipe.data.augmentation.filters import Operation, from_layer
from kpipe.data.augmentation.stateless_random import Draws, between

__all__ = ["aug_mix", "rand_augment"]

_OPERATIONS = 2
_CHAINS = 3
_DEPTH = 3


def rand_augment(magnitude: float) -> Operation:
    """Apply two operations in sequence.

    Args:
        magnitude: largest magnitude of each, as a fraction of the largest in the paper.
    """
    operations = [*_shapes(magnitude), *_lights(magnitude), lambda photo, seed: photo]

    def change(photo: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        indices = keras.random.randint((_OPERATIONS,), 0, len(operations), seed=Draws(seed))
        return _chain(operations, photo, indices, seed)

    return change


def aug_mix(severity: float) -> Operation:
    """Mix a photo with three chains of operations on it.

    Args:
        severity: largest severity of each operation, as a fraction of the largest in the paper.
    """
    operations = [*_shapes(severity), lambda photo, seed: photo]

    def change(photo: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        draws, last = Draws(seed), len(operations) - 1
        depths = keras.random.randint((_CHAINS, 1), 1, _DEPTH + 1, seed=draws)
        indices = keras.random.randint((_CHAINS, _DEPTH), 0, last, seed=draws)
        indices = tf.where(tf.range(_DEPTH) < depths, indices, last)
        weights = keras.random.gamma((_CHAINS,), 1.0, seed=draws)
        weights /= tf.reduce_sum(weights)
        own = keras.random.beta((), 1.0, 1.0, seed=draws)

        def add(mixed: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
            its = tf.random.experimental.stateless_fold_in(seed, number)
            return mixed + weights[number] * _chain(operations, photo, indices[number], its)

        mixed = tf.foldl(add, tf.range(_CHAINS, dtype=tf.int64), initializer=tf.zeros_like(photo))
        return tf.clip_by_value(own * photo + (1 - own) * mixed, 0.0, 255.0)

    return change


def _chain(
    operations: Sequence[Operation], photo: tf.Tensor, indices: tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    """Apply the operations with these indices in sequence, each with a separate seed."""

    def step(photo: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        its = tf.random.experimental.stateless_fold_in(seed, number)
        return tf.switch_case(indices[number], [partial(one, photo, its) for one in operations])

    return tf.foldl(step, tf.range(tf.size(indices, tf.int64)), initializer=photo)


def _shapes(magnitude: float) -> list[Operation]:
    """The operations of both policies: shear, translate, rotate, and changes of levels."""
    plain = {"seed": 0, "dtype": "float32"}
    shift, bits = 0.45 * magnitude, round(8 - 4 * magnitude)
    shear = (0.0, 0.3 * magnitude)
    chosen = [
        layers.RandomShear(x_factor=shear, **plain),
        layers.RandomShear(y_factor=shear, **plain),
        layers.RandomTranslation(0.0, shift, **plain),
        layers.RandomTranslation(shift, 0.0, **plain),
        layers.RandomRotation(30 / 360 * magnitude, **plain),
        layers.RandomPosterization((bits, 8), **plain),
        layers.AutoContrast(dtype="float32"),
        layers.Equalization(dtype="float32"),
    ]
    return [*map(from_layer, chosen), _solarize(magnitude)]


def _lights(magnitude: float) -> list[Operation]:
    """The operations of RandAugment only: brightness, contrast, color, sharpness."""
    plain = {"seed": 0, "dtype": "float32"}
    factor = 0.9 * magnitude
    chosen = [
        layers.RandomBrightness(factor / 2, **plain),
        # A single number would only raise the contrast.
        layers.RandomContrast((factor, factor), **plain),
        layers.RandomColorDegeneration((-factor, factor), **plain),
    ]
    sharpness = layers.RandomSharpness((0.5 - factor / 2, 0.5 + factor / 2), **plain)
    return [*map(from_layer, chosen), from_layer(sharpness, edge=1)]


def _solarize(magnitude: float) -> Operation:
    layer = layers.Solarization(seed=0, dtype="float32")

    def change(photo: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        # Drawn here, since the layer misreads the lower end of its range as one in [0, 1].
        threshold = between(256 * (1 - magnitude), 256.0, tf.random.stateless_uniform((), seed))
        drawn = {"additions": 0.0, "thresholds": threshold}
        return layer.transform_images(photo[None], drawn)[0]

    return change
