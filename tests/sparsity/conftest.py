from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf


def seeded(model: keras.Model, seed: int = 0) -> keras.Model:
    """Weights and statistics that are a function of the seed alone, none of them trivial."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        low = 0.5 if "variance" in weight.path or "gamma" in weight.path else -0.5
        weight.assign(rng.uniform(low, low + 1.0, weight.shape))
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    return model


def small_classifier(size: int = 16) -> keras.Model:
    inputs = keras.Input((size, size, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    x = keras.layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
    x = keras.layers.Conv2D(8, 3, strides=2, use_bias=False, name="stem")(x)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    x = keras.layers.ReLU(6.0)(x)
    x = keras.layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    y = keras.layers.Conv2D(8, 1, name="project")(x)
    x = keras.layers.Add()([x, y])
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(0.3)(x)
    outputs = keras.layers.Dense(2, activation="softmax", name="top")(x)
    return seeded(keras.Model(inputs, outputs))


def shared_between_models() -> keras.Model:
    """A Dense layer that is used by a model and by another inside of it."""
    shared = keras.layers.Dense(3, name="shared")
    row = keras.Input((3,))
    inner = keras.Model(row, keras.layers.ReLU()(shared(row)), name="inner")
    image = keras.Input((16, 16, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.Dense(2, activation="softmax")(shared(inner(x)))
    return seeded(keras.Model(image, x))


def sparse_classifier() -> keras.Model:
    """Every second weight of two kernels is zero, none of the others."""
    model = small_classifier()
    for name in ("stem", "top"):
        kernel = model.get_layer(name).kernel
        value = kernel.numpy()
        value.ravel()[::2] = 0
        kernel.assign(value)
    return model


def pixels(count: int, size: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, (count, size, size, 3)).astype(np.float32)


def batches(first_epoch: int) -> tf.data.Dataset:
    """Endless (images, labels), four batches an epoch, each a function of its number alone."""

    def numbered(first: int):
        step = first
        while True:
            images = pixels(8, seed=step)
            yield images, (images[:, :8].mean((1, 2, 3)) > 127.5).astype(np.int64)
            step += 1

    return tf.data.Dataset.from_generator(
        lambda: numbered(first_epoch * 4),
        output_signature=(
            tf.TensorSpec((8, 16, 16, 3), tf.float32),
            tf.TensorSpec((8,), tf.int64),
        ),
    )


class Killed(Exception):
    pass


def killed_after(last: int):
    def on_epoch(epoch: int, logs: dict[str, float]) -> None:
        if epoch == last:
            raise Killed

    return on_epoch
