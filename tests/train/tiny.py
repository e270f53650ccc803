"""A minimal training run with convolution, BatchNormalization and seeded dropout."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from kpipe.train import TrainingData

STEPS, BATCH, CLASSES = 4, 8, 3
_RANDOM = np.random.default_rng(0)
LABELS = np.tile(np.arange(CLASSES), 20)[: STEPS * BATCH]
IMAGES = (
    _RANDOM.uniform(0, 155, (STEPS * BATCH, 8, 8, 3)) + 50 * LABELS[:, None, None, None]
).astype("float32")


def model() -> keras.Model:
    """The same weights each time."""
    # As in every stage; without it, the last bits differ.
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
    """Return endless batches, each epoch in another order."""

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


def training_data(batches=data, *options) -> TrainingData:
    """Group batches with the options validation and batch_names."""
    return TrainingData(batches, STEPS, *options)


def values(trained: keras.Model) -> list[np.ndarray]:
    """Every variable, the dropout's seed included."""
    return [variable.numpy() for variable in trained.variables]


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) and all(map(np.array_equal, one, other))
