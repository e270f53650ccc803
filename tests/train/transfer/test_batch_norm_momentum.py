from __future__ import annotations

import keras
import numpy as np
import pytest

from kpipe.errors import TrainingError
from kpipe.train import adapt_bn_momentum, recalibrate

BATCHES = [
    np.random.default_rng(seed).uniform(0, 255, (6, 5, 5, 3)).astype("float32") * (1 + seed)
    for seed in range(4)
]


def model(momentum: float = 0.99) -> keras.Model:
    """Normalization of the pixels themselves, then of what a convolution makes of them."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((5, 5, 3))
    x = keras.layers.BatchNormalization(momentum=momentum, name="first")(pixels)
    x = keras.layers.Conv2D(4, 3, name="conv")(x)
    x = keras.layers.BatchNormalization(momentum=momentum, name="second")(x)
    return keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x))


def statistics(layer: keras.layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    return np.array(layer.moving_mean), np.array(layer.moving_variance)


def test_recalibrated_statistics_are_the_means_over_the_batches() -> None:
    net = model()
    recalibrate(net, BATCHES)
    mean, variance = statistics(net.get_layer("first"))
    axes = (0, 1, 2)
    np.testing.assert_allclose(mean, np.mean([b.mean(axes) for b in BATCHES], 0), rtol=1e-4)
    np.testing.assert_allclose(variance, np.mean([b.var(axes) for b in BATCHES], 0), rtol=1e-3)


def test_a_later_layer_sees_what_the_earlier_ones_make_of_each_batch() -> None:
    net = model()
    recalibrate(net, BATCHES)
    conv = net.get_layer("conv")
    seen = []
    for batch in BATCHES:
        normal = (batch - batch.mean((0, 1, 2))) / np.sqrt(batch.var((0, 1, 2)) + 1e-3)
        seen.append(np.array(conv(normal)))
    mean, variance = statistics(net.get_layer("second"))
    np.testing.assert_allclose(mean, np.mean([s.mean((0, 1, 2)) for s in seen], 0), atol=1e-4)
    np.testing.assert_allclose(variance, np.mean([s.var((0, 1, 2)) for s in seen], 0), rtol=1e-3)


def test_what_was_there_before_is_forgotten_and_all_else_stays() -> None:
    net, other = model(), model()
    for layer in (other.get_layer("first"), other.get_layer("second")):
        layer.moving_mean.assign(layer.moving_mean + 1000)
        layer.moving_variance.assign(layer.moving_variance * 1000)
    weights = [np.array(v) for v in other.trainable_variables]
    for one in (net, other):
        recalibrate(one, BATCHES)
    for name in ("first", "second"):
        for a, b in zip(
            statistics(net.get_layer(name)), statistics(other.get_layer(name)), strict=True
        ):
            np.testing.assert_array_equal(a, b)
        assert other.get_layer(name).momentum == 0.99
    for before, after in zip(weights, other.trainable_variables, strict=True):
        np.testing.assert_array_equal(before, np.array(after))


def test_frozen_layers_keep_their_statistics() -> None:
    net = model()
    net.get_layer("first").trainable = False
    recalibrate(net, BATCHES)
    mean, variance = statistics(net.get_layer("first"))
    assert not mean.any() and (variance == 1).all()
    assert statistics(net.get_layer("second"))[0].any()


def test_without_images_it_is_refused() -> None:
    with pytest.raises(TrainingError, match="no images"):
        recalibrate(model(), [])


def test_the_momentum_comes_back_when_the_images_fail() -> None:
    net = model()

    def broken():
        yield BATCHES[0]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        recalibrate(net, broken())
    assert net.get_layer("second").momentum == 0.99


@pytest.mark.parametrize(
    ("steps", "expected"), [(1, 0.5), (5, 0.5), (10, 0.5), (20, 0.75), (100, 0.95), (5000, 0.99)]
)
def test_the_statistics_forget_within_a_fifth_of_an_epoch(steps: int, expected: float) -> None:
    net = model()
    limit = adapt_bn_momentum(net, steps)
    assert limit == pytest.approx(max(0.5, 1 - 5 / steps))
    assert net.get_layer("first").momentum == pytest.approx(expected)
    # A fifth of an epoch later, what was there counts for less than half.
    assert steps < 50 or limit ** (steps / 5) < 0.5


def test_a_momentum_that_is_low_already_and_a_frozen_layer_stay() -> None:
    net = model(momentum=0.3)
    adapt_bn_momentum(net, 100)
    assert net.get_layer("first").momentum == 0.3
    net = model()
    net.get_layer("first").trainable = False
    adapt_bn_momentum(net, 20)
    assert net.get_layer("first").momentum == 0.99
    assert net.get_layer("second").momentum == pytest.approx(0.75)


def test_training_after_it_moves_the_statistics_by_that_momentum() -> None:
    net = model()
    adapt_bn_momentum(net, 20)
    net(BATCHES[0], training=True)
    mean, _ = statistics(net.get_layer("first"))
    np.testing.assert_allclose(mean, 0.25 * BATCHES[0].mean((0, 1, 2)), rtol=1e-4)
