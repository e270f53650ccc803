"""Random numbers that depend only on the seed of a photo.

    seed of a photo            (2,) int64
    seed of an operation       seed of the photo xor (0, crc32 of the operation's name)
    n-th draw of an operation  seed of the operation xor (n, 0)

TensorFlow scrambles seeds, so seeds that differ in one bit give unrelated numbers. There is no
state: threads cannot race, a batch gives the same photos as its photos one by one, and no operation
affects the draws of another.
"""

from __future__ import annotations

import contextlib
import threading
import zlib
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

__all__ = ["Draws", "Generator", "between", "seed_of", "uniforms"]


def seed_of(name: str, seeds: tf.Tensor) -> tf.Tensor:
    """Return the seeds of a named operation for seeds of photos, (..., 2) int64."""
    # Unlike hash(), crc32 is the same in every process.
    return tf.bitwise.bitwise_xor(seeds, tf.constant([0, zlib.crc32(name.encode())], tf.int64))


def uniforms(names: Sequence[str], seeds: tf.Tensor) -> dict[str, tf.Tensor]:
    """Draw one number in [0, 1) for each name and photo.

    Args:
        names: names of the numbers. A number depends on its position, so callers pass one fixed
            list, even if they use few of them: one draw for a photo is far cheaper than many.
        seeds: seeds of the photos, (batch, 2) int64.
    """

    def of_photo(seed: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_uniform((len(names),), seed)

    signature = tf.TensorSpec((len(names),), tf.float32)
    drawn = tf.map_fn(of_photo, seeds, fn_output_signature=signature)
    return dict(zip(names, tf.unstack(drawn, len(names), axis=1), strict=True))


def between(low: float, high: float, drawn: tf.Tensor) -> tf.Tensor:
    """Map numbers from [0, 1) to [low, high)."""
    return low + (high - low) * drawn


class Draws(keras.random.SeedGenerator):
    """The draws of one operation on one photo, as the seed of a Keras layer's transformation.

    Keras' `SeedGenerator` counts in a variable; this one counts while the graph is traced.

    Args:
        seed: seed of the operation, (2,) int64.
    """

    def __init__(self, seed: tf.Tensor) -> None:
        self._seed = seed
        self._drawn = 0

    def next(self, ordered: bool = True) -> tf.Tensor:
        """Return the seed of the next draw, (2,) int64."""
        self._drawn += 1
        return tf.bitwise.bitwise_xor(self._seed, tf.constant([self._drawn, 0], tf.int64))


class Generator:
    """A replacement for the stateful `tf.random.Generator` of a KerasCV layer.

    with generator.drawing(seed):
        layer.get_random_transformation(image)
    """

    def __init__(self) -> None:
        self._draws: Draws | None = None
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def drawing(self, seed: tf.Tensor) -> Iterator[None]:
        """Draw from a seed, (2,) int64; other threads that trace the same layer wait."""
        with self._lock:
            self._draws = Draws(seed)
            try:
                yield
            finally:
                self._draws = None

    def uniform(
        self, shape: tf.Tensor, minval: float = 0.0, maxval: float = 1.0, dtype: str = "float32"
    ) -> tf.Tensor:
        """Draw numbers in [minval, maxval)."""
        return tf.random.stateless_uniform(shape, self._seed(), minval, maxval, dtype)

    def normal(self, shape: tf.Tensor) -> tf.Tensor:
        """Draw standard normal numbers."""
        return tf.random.stateless_normal(shape, self._seed())

    def _seed(self) -> tf.Tensor:
        if self._draws is None:
            raise RuntimeError("a KerasCV layer draws random numbers outside of drawing(seed)")
        return self._draws.next()
