from __future__ import annotations

import keras
import numpy as np
import pytest

from kpipe.errors import TrainingError
from kpipe.train import update_bn

BATCHES = [
    np.random.default_rng(seed).normal(seed, 2, (5, 3, 3, 2)).astype("float32") for seed in range(4)
]


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    first = keras.layers.BatchNormalization(momentum=0.9, name="first")
    second = keras.layers.BatchNormalization(epsilon=0.1, name="second")
    layers = [first, keras.layers.Conv2D(4, 2), second, keras.layers.Flatten()]
    return keras.Sequential([keras.Input((3, 3, 2)), *layers, keras.layers.Dense(2)])


def normalized(x: np.ndarray, layer: keras.layers.BatchNormalization) -> np.ndarray:
    mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    return (x - mean) / np.sqrt(variance + layer.epsilon)


def convolved(x: np.ndarray, layer: keras.layers.Conv2D) -> np.ndarray:
    return np.asarray(layer(x))


def test_statistics_are_the_means_over_the_batches() -> None:
    model = network()
    first, conv, second = model.layers[:3]
    assert update_bn(model, [(batch, "label") for batch in BATCHES]) == 2
    inputs = [convolved(normalized(batch, first), conv) for batch in BATCHES]
    for layer, seen in ((first, BATCHES), (second, inputs)):
        means = np.mean([batch.mean(axis=(0, 1, 2)) for batch in seen], axis=0)
        variances = np.mean([batch.var(axis=(0, 1, 2)) for batch in seen], axis=0)
        np.testing.assert_allclose(layer.moving_mean, means, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(layer.moving_variance, variances, rtol=1e-4)
    assert (first.momentum, second.momentum) == (0.9, 0.99)


def test_what_was_there_before_does_not_count() -> None:
    one, other = network(), network()
    other.layers[0].moving_mean.assign([50.0, -50.0])
    for model in (one, other):
        update_bn(model, BATCHES)
    for mine, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_frozen_layers_keep_their_statistics() -> None:
    model = network()
    model.layers[0].trainable = False
    assert update_bn(model, BATCHES) == 1
    np.testing.assert_array_equal(model.layers[0].moving_mean, [0, 0])
    assert np.abs(model.layers[2].moving_mean).max() > 0.1
    model.trainable = False
    before = model.get_weights()

    def unread():
        raise AssertionError
        yield

    assert update_bn(model, unread()) == 0
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_trained_weights_stay() -> None:
    model = network()
    before = [np.array(weight) for weight in model.trainable_weights]
    update_bn(model, BATCHES)
    for now, then in zip(model.trainable_weights, before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_no_batches_are_an_error_and_change_nothing() -> None:
    model = network()
    with pytest.raises(TrainingError, match="no batches"):
        update_bn(model, [])
    np.testing.assert_array_equal(model.layers[0].moving_variance, [1, 1])
    for wrong in (np.zeros((2, 3, 3, 7), "float32"), BATCHES[0] * np.nan, "photos", 3):
        with pytest.raises(TrainingError):
            update_bn(model, [BATCHES[0], wrong])
        np.testing.assert_array_equal(model.layers[0].moving_variance, [1, 1])
        assert model.layers[0].momentum == 0.9
