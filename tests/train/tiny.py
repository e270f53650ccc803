"""The smallest training that has everything: convolution, BatchNormalization, seeded dropout."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

STEPS, BATCH, CLASSES = 4, 8, 3
_RANDOM = np.random.default_rng(0)
LABELS = np.tile(np.arange(CLASSES), 20)[: STEPS * BATCH]
IMAGES = (
    _RANDOM.uniform(0, 155, (STEPS * BATCH, 8, 8, 3)) + 50 * LABELS[:, None, None, None]
).astype("float32")


def model() -> keras.Model:
    """The same weights each time."""
    # As every stage does: whether it is on changes the last bits, in whatever process this runs.
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(1)
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(pixels)
    x = keras.layers.Conv2D(4, 3, name="conv")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.ReLU(name="relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dropout(0.3, seed=5, name="dropout")(x)
    x = keras.layers.Dense(CLASSES, name="logits")(x)
    return keras.Model(pixels, keras.layers.Softmax(name="probabilities")(x))


def data(first_epoch: int) -> tf.data.Dataset:
    """Endless; each epoch in an order of its own."""

    def batches():
        epoch = first_epoch
        while True:
            order = np.random.default_rng(epoch).permutation(len(LABELS))
            for rows in order.reshape(STEPS, BATCH):
                yield IMAGES[rows], LABELS[rows]
            epoch += 1

    return tf.data.Dataset.from_generator(
        batches,
        output_signature=(
            tf.TensorSpec((BATCH, 8, 8, 3), tf.float32),
            tf.TensorSpec((BATCH,), tf.int64),
        ),
    )


def validation() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((IMAGES[:16], LABELS[:16])).batch(8)


def values(trained: keras.Model) -> list[np.ndarray]:
    """Every variable, the dropout's seed included."""
    return [variable.numpy() for variable in trained.variables]


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) and all(map(np.array_equal, one, other))
