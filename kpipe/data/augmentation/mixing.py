"""Mixing, of the photos of a batch and their labels: mix_up, cut_mix, fourier_mix.

    photo := m photo_a + (1 - m) photo_b        label := lambda label_a + (1 - lambda) label_b
    mix_up       m is a number, and lambda is m                         (Zhang et al. 2018)
    cut_mix      m is 0 in a rectangle, 1 elsewhere; lambda its mean    (Yun et al. 2019)
    fourier_mix  m is 1 in blobs, 0 elsewhere; lambda its mean          (Harris et al. 2020, FMix)

Labels are mixed linearly, so one-hot rows may be multiplied by class weights before:
lambda weight_a onehot_a + (1 - lambda) weight_b onehot_b.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import keras
import tensorflow as tf

from kpipe.data.augmentation.stateless_random import Draws, Generator, seed_of
from kpipe.data.augmentation.strengths import ALPHAS, invalid_strengths
from kpipe.errors import DataError
from kpipe.keras_internals import binarize_mask, sample_mask_field, set_generator
from kpipe.wrong_kinds import names_wrong_kinds_of_fields

__all__ = ["Mixer"]

# Images (batch, height, width, 3) and a seed (2,) -> mixed images, lambda (batch,), partners.
Mix = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]


@names_wrong_kinds_of_fields
@dataclass(frozen=True)
class Mixer:
    """Mix the photos of a batch in pairs; of several methods that are on, each batch draws one.

    Each strength is the alpha of the Beta(alpha, alpha) distribution of lambda: near 0 one photo of
    a pair dominates, 1 is uniform, above 1 equal mixes are likelier. 0 is off.

    Args:
        mix_up: alpha of MixUp, in [0.05, 10]; 0.2 in the paper's ImageNet runs.
        cut_mix: alpha of CutMix, in [0.05, 1]; 1 in the paper.
        fourier_mix: alpha of FMix, in [0.05, 10]; 1 in the paper.

    Raises:
        DataError: if values are out of range, naming each.

    Example:
        >>> import tensorflow as tf
        >>> from kpipe.data import Mixer
        >>> images = tf.random.uniform((4, 32, 32, 3), maxval=255)
        >>> labels = tf.one_hot([0, 1, 2, 0], 3)
        >>> images, labels = Mixer(mix_up=0.2)(images, labels, tf.constant([7, 0]))
        >>> tf.reduce_sum(labels, axis=1).numpy().tolist()
        [1.0, 1.0, 1.0, 1.0]
    """

    mix_up: float = 0.0
    cut_mix: float = 0.0
    fourier_mix: float = 0.0

    def __post_init__(self) -> None:
        if errors := invalid_strengths(self, ALPHAS):
            raise DataError("invalid mixing", received="\n    ".join(errors))
        # Created now: a Keras layer creates a variable (unused here), which tracing forbids.
        _ = self._methods

    @cached_property
    def _methods(self) -> list[Mix]:
        strengths = (
            (_mix_up, self.mix_up),
            (_cut_mix, self.cut_mix),
            (_fourier_mix, self.fourier_mix),
        )
        return [method(alpha) for method, alpha in strengths if alpha]

    def __call__(
        self, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the mixed batch; a pure function of its arguments.

        Args:
            images: (batch, height, width, 3) in [0, 255], uint8 or float.
            labels: (batch, classes) float32, one-hot or other.
            seed: (2,) int32 or int64.

        Returns:
            Images and labels, of the same shapes and types.
        """
        if not self._methods:
            return images, labels
        seed = tf.cast(seed, tf.int64)
        pixels = tf.cast(images, tf.float32)
        methods, way = self._methods, seed_of("way", seed)
        chosen = tf.random.stateless_uniform((), way, 0, len(methods), tf.int32)
        pixels, weight, partners = tf.switch_case(
            chosen, [partial(method, pixels, seed) for method in methods]
        )
        weight = weight[:, None]
        labels = weight * labels + (1 - weight) * tf.gather(labels, partners)
        if images.dtype.is_integer:
            pixels = tf.round(pixels)
        return tf.ensure_shape(tf.cast(pixels, images.dtype), images.shape), labels


def _mix_up(alpha: float) -> Mix:
    layer = keras.layers.MixUp(alpha, seed=0, dtype="float32")

    def mix(images: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        drawn = layer.get_random_transformation(images, seed=Draws(seed_of("mix_up", seed)))
        mixed = layer.transform_images(images, drawn)
        return mixed, drawn["mix_weight"], drawn["permutation_order"]

    return mix


def _cut_mix(alpha: float) -> Mix:
    # A single number would be the upper bound of a random alpha.
    layer = keras.layers.CutMix((alpha, alpha), seed=0, dtype="float32")

    def mix(images: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        drawn = layer.get_random_transformation(images, seed=Draws(seed_of("cut_mix", seed)))
        # The layer's lambda refers to the rectangle before it is clipped to whole pixels.
        pasted = tf.reduce_mean(tf.cast(drawn["batch_masks"], tf.float32), axis=(1, 2, 3))
        partners = tf.cast(drawn["permutation_order"], tf.int64)
        return layer.transform_images(images, drawn), 1 - pasted, partners

    return mix


def _fourier_mix(alpha: float) -> Mix:
    import keras_cv

    layer = keras_cv.layers.FourierMix(alpha, seed=1)
    generator = Generator()
    set_generator(layer, generator)

    def mix(images: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        batch, size = tf.shape(images)[0], tf.shape(images)[1:3]
        draws = Draws(seed_of("fourier_mix", seed))
        # The layer would draw these two from the state of the process.
        partners = keras.random.shuffle(tf.range(batch, dtype=tf.int64), seed=draws)
        weights = keras.random.beta((batch,), alpha, alpha, seed=draws)
        mask_seed = draws.next()

        def mask(pair: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            weight, number = pair
            its = tf.random.experimental.stateless_fold_in(mask_seed, number)
            with generator.drawing(its):
                field = sample_mask_field(layer, size)
            return binarize_mask(layer, field, weight, size)

        numbers = tf.range(batch, dtype=tf.int64)
        masks = tf.map_fn(mask, (weights, numbers), fn_output_signature=tf.float32)[..., None]
        mixed = masks * images + (1 - masks) * tf.gather(images, partners)
        return mixed, tf.reduce_mean(masks, axis=(1, 2, 3)), partners

    return mix
