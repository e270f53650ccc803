"""The learning rate of a retraining."""

from __future__ import annotations

import keras
import pytest

from kpipe.stages.compression.retraining import retraining_rate, unfreeze_but_normalization


@pytest.mark.parametrize(("frozen", "rate"), [(False, 5e-4), (True, 1e-4)])
def test_frozen_normalization_needs_a_low_rate(frozen: bool, rate: float) -> None:
    layers = [keras.layers.Conv2D(2, 1), keras.layers.BatchNormalization()]
    model = keras.Sequential([keras.Input((4, 4, 3)), *layers])
    model.trainable = not frozen
    unfreeze_but_normalization(model)
    assert layers[0].trainable and layers[1].trainable is not frozen
    assert retraining_rate(model, None) == rate
    assert retraining_rate(model, 0.1) == 0.1
    assert retraining_rate(model, None, frozen=3e-4) == (3e-4 if frozen else 5e-4)
