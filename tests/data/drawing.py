"""One photo, and many draws of an augmenter on it."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from kpipe.data import Augmenter


def noisy_photo(height: int = 24, width: int = 24) -> np.ndarray:
    """Random pixels, far enough from black and white: (height, width, 3) float32."""
    return np.random.default_rng(0).uniform(40, 200, (height, width, 3)).astype(np.float32)


def draws(augmenter: Augmenter, image: np.ndarray, count: int) -> np.ndarray:
    """The image drawn from `count` seeds: (count, height, width, 3)."""
    seeds = tf.constant([[0, number] for number in range(count)], tf.int64)
    return augmenter(tf.repeat(image[None], count, axis=0), seeds).numpy()
