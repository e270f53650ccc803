"""Random numbers that are a function of a photo's own seed, and of nothing else.

    seed of a photo            (2,) int64
    seed of an operation       seed of the photo xor (0, crc32 of the operation's name)
    n-th draw of an operation  seed of the operation xor (n, 0)

TensorFlow scrambles a seed before it uses it, so seeds that differ in one bit draw unrelated
numbers. There is no state: threads have nothing to race for, a batch of photos equals its photos
one by one, and no operation moves the draws of another.
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
    """The seeds of a named operation.

    Args:
        name: of the operation.
        seeds: of photos, (..., 2) int64.

    Returns:
        (..., 2) int64.
    """
    # crc32 is the same in every process, unlike hash().
    return tf.bitwise.bitwise_xor(seeds, tf.constant([0, zlib.crc32(name.encode())], tf.int64))


def uniforms(names: Sequence[str], seeds: tf.Tensor) -> dict[str, tf.Tensor]:
    """One number in [0, 1) for each name and photo.

    Args:
        names: of the numbers. What a name draws depends on its place, so callers pass one fixed
            list, whichever of the numbers they use: one draw a photo is far cheaper than one each.
        seeds: of the photos, (batch, 2) int64.

    Returns:
        name -> (batch,) float32.
    """

    def of_photo(seed: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_uniform((len(names),), seed)

    signature = tf.TensorSpec((len(names),), tf.float32)
    drawn = tf.map_fn(of_photo, seeds, fn_output_signature=signature)
    return dict(zip(names, tf.unstack(drawn, len(names), axis=1), strict=True))


def between(low: float, high: float, drawn: tf.Tensor) -> tf.Tensor:
    """Numbers drawn from [0, 1), spread over [low, high)."""
    return low + (high - low) * drawn


class Draws(keras.random.SeedGenerator):
    """The draws of one operation on one photo, as the seed of a Keras layer's transformation.

    Keras' own `SeedGenerator` counts in a variable; this one counts while the graph is traced.

    Args:
        seed: of the operation, (2,) int64.
    """

    def __init__(self, seed: tf.Tensor) -> None:
        self._seed = seed
        self._drawn = 0

    def next(self, ordered: bool = True) -> tf.Tensor:
        """The seed of the next draw, (2,) int64."""
        self._drawn += 1
        return tf.bitwise.bitwise_xor(self._seed, tf.constant([self._drawn, 0], tf.int64))


class Generator:
    """Stands in for the `tf.random.Generator`, with a state, that a KerasCV layer holds.

    with generator.drawing(seed):
        layer.get_random_transformation(image)
    """

    def __init__(self) -> None:
        self._draws: Draws | None = None
        self._alone = threading.Lock()

    @contextlib.contextmanager
    def drawing(self, seed: tf.Tensor) -> Iterator[None]:
        """Draw from a seed, (2,) int64; other threads, which may trace the same layer, wait."""
        with self._alone:
            self._draws = Draws(seed)
            try:
                yield
            finally:
                self._draws = None

    def uniform(
        self, shape: tf.Tensor, minval: float = 0.0, maxval: float = 1.0, dtype: str = "float32"
    ) -> tf.Tensor:
        """Numbers in [minval, maxval)."""
        return tf.random.stateless_uniform(shape, self._seed(), minval, maxval, dtype)

    def normal(self, shape: tf.Tensor) -> tf.Tensor:
        """Standard normal numbers."""
        return tf.random.stateless_normal(shape, self._seed())

    def _seed(self) -> tf.Tensor:
        if self._draws is None:
            raise RuntimeError("a KerasCV layer draws outside of drawing(seed)")
        return self._draws.next()
