"""The same network at another image size."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kpipe.errors import TrainingError
from kpipe.train import backbone, classifier, resize, unfreeze


@pytest.mark.parametrize(
    "name",
    [
        "MobileNetV2",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("MobileNetV3Small", "EfficientNetB0")),
    ],
)
def test_resizing_back_restores_the_model(name: str) -> None:
    model = classifier(backbone(name, image_size=32, weights=None), 3)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.adapt(pixels / 255)
    unfreeze(model, 12)
    large = resize(model, (48, 64))
    assert large.input_shape == (None, 48, 64, 3)
    assert len(large.trainable_variables) == len(model.trainable_variables)
    assert [layer.name for layer in large.layers] == [layer.name for layer in model.layers]
    for one, other in zip(model.get_weights(), large.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(resize(large, 32)(pixels), model(pixels))


def test_nested_models_follow_the_new_size() -> None:
    """Also those built on a map of a fixed size, within a Sequential within a model."""
    inside = keras.Input((3, 3, 4))
    block = keras.Model(inside, keras.layers.Conv2D(4, 1)(inside))
    fixed = keras.Sequential([keras.Input((6, 6, 4)), keras.layers.MaxPooling2D(), block])
    pixels = keras.Input((8, 8, 3))
    x = fixed(keras.layers.Conv2D(4, 3)(pixels))
    model = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x))
    large = resize(model, 12)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    np.testing.assert_array_equal(resize(large, 8)(images), model(images))


def test_a_compiled_model_with_a_custom_loss_is_resized() -> None:
    pixels = keras.Input((8, 8, 3))
    model = keras.Model(pixels, keras.layers.Conv2D(2, 3)(pixels))
    model.compile("sgd", lambda truth, predicted: keras.ops.mean(predicted))
    assert not resize(model, 12).compiled


def test_a_flattened_map_and_a_small_image_are_rejected() -> None:
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 5)(pixels)
    flat = keras.Model(pixels, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    with pytest.raises(TrainingError, match="12 x 12"):
        resize(flat, 12)
    pooled = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x))
    with pytest.raises(TrainingError, match="4 x 4"):
        resize(pooled, 4)
    with pytest.raises(TrainingError, match="does not take one image"):
        resize(keras.Sequential([pixels, keras.layers.Flatten()]), 8)
