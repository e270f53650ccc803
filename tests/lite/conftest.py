from __future__ import annotations

import keras
import numpy as np
import pytest

from kpipe.lite import convert

# Scripts that tests run in another Python: importing them for their docstrings would run them.
collect_ignore = ["litert_outputs.py", "mediapipe_scores.py", "without_tensorflow.py"]


def small_classifier(size: int = 32, classes: int = 3) -> keras.Model:
    """Return a model with automatic layer names, which depend on the process's history."""
    inputs = keras.Input((size, size, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.ReLU(6.0)(x)
    x = keras.layers.DepthwiseConv2D(3, padding="same")(x)
    x = keras.layers.Add()([x, keras.layers.Activation("relu")(x)])
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(0.5)(x)
    return keras.Model(inputs, keras.layers.Dense(classes, activation="softmax")(x))


def seeded(model: keras.Model, seed: int = 0) -> keras.Model:
    """Set weights that depend on the seed alone, with predictions that differ between photos."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        positive = "variance" in weight.path or "gamma" in weight.path
        low = 0.5 if positive else -0.6
        weight.assign(rng.uniform(low, low + 1.2, weight.shape))
    features = keras.Model(model.input, model.layers[-2].output)(photos(16).astype(np.float32))
    top = model.layers[-1]
    top.kernel.assign(top.kernel * 10)
    top.bias.assign(-np.mean(features, axis=0) @ top.kernel.numpy())
    return model


def photos(count: int, size: int = 32, seed: int = 0) -> np.ndarray:
    """Return smooth uint8 images with the whole range of colors."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, size)
    waves = np.cos(
        rng.uniform(1, 12, (count, 1, 1, 3)) * (ramp[:, None, None] + ramp[None, :, None])
        + rng.uniform(0, 6, (count, 1, 1, 3))
    )
    return ((waves + 1) * 127.5).astype(np.uint8)


@pytest.fixture(scope="session")
def model() -> keras.Model:
    return seeded(small_classifier())


@pytest.fixture(scope="session")
def float_file(model: keras.Model) -> bytes:
    return convert(model)


@pytest.fixture(scope="session")
def int8_file(model: keras.Model) -> bytes:
    return convert(model, "int8", calibration=photos(16))
