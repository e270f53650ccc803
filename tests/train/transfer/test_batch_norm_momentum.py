from __future__ import annotations

import keras
import numpy as np
import pytest

from kpipe.train import adapt_bn_momentum

BATCHES = [
    np.random.default_rng(seed).uniform(0, 255, (6, 5, 5, 3)).astype("float32") * (1 + seed)
    for seed in range(4)
]


def model(momentum: float = 0.99) -> keras.Model:
    """A normalization of the pixels, and one of the output of a convolution."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((5, 5, 3))
    x = keras.layers.BatchNormalization(momentum=momentum, name="first")(pixels)
    x = keras.layers.Conv2D(4, 3, name="conv")(x)
    x = keras.layers.BatchNormalization(momentum=momentum, name="second")(x)
    return keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x))


def statistics(layer: keras.layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    return np.array(layer.moving_mean), np.array(layer.moving_variance)


@pytest.mark.parametrize(
    ("steps", "expected"), [(1, 0.5), (5, 0.5), (10, 0.5), (20, 0.75), (100, 0.95), (5000, 0.99)]
)
def test_the_momentum_covers_a_fifth_of_an_epoch(steps: int, expected: float) -> None:
    net = model()
    limit = adapt_bn_momentum(net, steps)
    assert limit == pytest.approx(max(0.5, 1 - 5 / steps))
    assert net.get_layer("first").momentum == pytest.approx(expected)
    # A fifth of an epoch later, what was there counts for less than half.
    assert steps < 50 or limit ** (steps / 5) < 0.5


def test_low_momenta_and_frozen_layers_do_not_change() -> None:
    net = model(momentum=0.3)
    adapt_bn_momentum(net, 100)
    assert net.get_layer("first").momentum == 0.3
    net = model()
    net.get_layer("first").trainable = False
    adapt_bn_momentum(net, 20)
    assert net.get_layer("first").momentum == 0.99
    assert net.get_layer("second").momentum == pytest.approx(0.75)


def test_training_uses_the_new_momentum() -> None:
    net = model()
    adapt_bn_momentum(net, 20)
    net(BATCHES[0], training=True)
    mean, _ = statistics(net.get_layer("first"))
    np.testing.assert_allclose(mean, 0.25 * BATCHES[0].mean((0, 1, 2)), rtol=1e-4)
