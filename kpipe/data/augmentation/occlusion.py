"""Occlusions, which hide parts of one photo under grey: erase, grid_mask."""

from __future__ import annotations

import keras
import tensorflow as tf

from kpipe.data.augmentation.filters import Operation, from_layer, sometimes
from kpipe.data.augmentation.stateless_random import Generator
from kpipe.keras_internals import set_generator

__all__ = ["erase", "grid_mask"]

# The middle of the range; black would shift the mean of the photo.
_GREY = 128


def erase(probability: float) -> Operation:
    """Draw a grey rectangle over 2 to 33 % of a photo, with a probability (Zhong et al. 2020)."""
    layer = keras.layers.RandomErasing((1.0, 1.0), fill_value=_GREY, seed=0, dtype="float32")
    return sometimes(probability, from_layer(layer))


def grid_mask(probability: float) -> Operation:
    """Draw a rotated grid of grey squares over a quarter, with a probability (Chen et al. 2020)."""
    import keras_cv

    layer = keras_cv.layers.GridMask(ratio_factor=(0.5, 0.5), seed=1)
    generator = Generator()
    for part in (layer, layer.random_rotate):
        set_generator(part, generator)

    def change(photo: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        with generator.drawing(seed):
            mask, _ = layer.get_random_transformation(image=photo)
        # The mask is a square over the diagonal; take its middle.
        top, left = tf.unstack((tf.shape(mask)[:2] - tf.shape(photo)[:2]) // 2)
        mask = mask[top : top + tf.shape(photo)[0], left : left + tf.shape(photo)[1]]
        return tf.where(mask > 0, float(_GREY), photo)

    return sometimes(probability, change)
