"""The same network at another image size."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kpipe.errors import TrainingError
from kpipe.train import backbone, classifier, resize, unfreeze


@pytest.mark.parametrize("name", ["MobileNetV2", "MobileNetV3Small", "EfficientNetB0"])
def test_resizing_back_restores_the_model(name: str) -> None:
    model = classifier(backbone(name, image_size=32, weights=None), 3)
    unfreeze(model, 12)
    large = resize(model, (48, 64))
    assert large.input_shape == (None, 48, 64, 3)
    assert len(large.trainable_variables) == len(model.trainable_variables)
    assert [layer.name for layer in large.layers] == [layer.name for layer in model.layers]
    for one, other in zip(model.get_weights(), large.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    np.testing.assert_array_equal(resize(large, 32)(pixels), model(pixels))


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
