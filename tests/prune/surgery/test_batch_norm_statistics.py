"""Statistics shift by what a removal changed, and by nothing else."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers

from kpipe.errors import PruneError
from kpipe.prune import Plan, plan, remove_filters, shift_statistics
from tests.prune import nets
from tests.prune.masking import random_request, randomize

BATCHES = [
    np.random.default_rng(seed).uniform(0, 255, (6, 8, 8, 3)).astype("float32") * (1 + seed)
    for seed in range(2)
]


def normalizations(model: keras.Model) -> dict[str, keras.layers.BatchNormalization]:
    return {x.name: x for x in model.layers if isinstance(x, layers.BatchNormalization)}


def measured(model: keras.Model, batch: np.ndarray) -> keras.Model:
    """Set the statistics of every normalization to those of the batch, by Keras' training mode."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
        if isinstance(layer, layers.Dropout):
            layer.rate = 0.0
    model(batch, training=True)
    return model


def cut(model: keras.Model, seed: int = 1) -> tuple[Plan, keras.Model]:
    request = random_request(model, seed)
    asked = plan(model, request)
    assert any(name in asked.kept for name in normalizations(model))
    return asked, remove_filters(model, asked)


@pytest.mark.parametrize("net", [nets.lite, nets.residual])
def test_statistics_of_a_batch_become_those_of_the_smaller_model(
    net: Callable[[], keras.Model],
) -> None:
    model = measured(randomize(net()), BATCHES[0])
    asked, small = cut(model)
    shift_statistics(model, small, asked, BATCHES[:1])
    expected = measured(remove_filters(model, asked), BATCHES[0])
    for name, layer in normalizations(small).items():
        other = normalizations(expected)[name]
        for part in ("moving_mean", "moving_variance"):
            np.testing.assert_allclose(
                getattr(layer, part), getattr(other, part), rtol=2e-3, atol=2e-3, err_msg=name
            )


def test_means_move_by_the_change_and_variances_by_its_ratio_over_all_batches() -> None:
    inputs = nets.image()
    x = layers.Conv2D(6, 3, name="first")(inputs)
    x = layers.BatchNormalization(name="bn_first")(x)
    x = layers.Conv2D(4, 3, name="second")(layers.ReLU()(x))
    x = layers.BatchNormalization(name="bn_second")(x)
    model = randomize(keras.Model(inputs, x))
    asked = plan(model, {"first": [0, 3]})
    small = remove_filters(model, asked)
    before = {
        name: [np.array(w) for w in layer.weights] for name, layer in normalizations(small).items()
    }
    shift_statistics(model, small, asked, [(batch, "labels") for batch in BATCHES])

    # Nothing before the first normalization went: its statistics stay on what is left of it.
    for old, new in zip(before["bn_first"], normalizations(small)["bn_first"].weights, strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-5)

    def moments(net: keras.Model, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inner = keras.Model(net.inputs[0], net.get_layer("second").output)
        x = np.array(inner(batch), np.float64)
        return x.mean((0, 1, 2)), x.var((0, 1, 2))

    *_, mean, variance = before["bn_second"]
    means, variances = [], []
    for batch in BATCHES:
        (old_mean, old_variance), (new_mean, new_variance) = (
            moments(net, batch) for net in (model, small)
        )
        means.append(mean + new_mean - old_mean)
        ratio = (new_variance + 1e-3) / (old_variance + 1e-3)
        variances.append((variance + 1e-3) * ratio - 1e-3)
    layer = normalizations(small)["bn_second"]
    np.testing.assert_allclose(layer.moving_mean, np.mean(means, 0), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(layer.moving_variance, np.mean(variances, 0), rtol=1e-3)
    for old, new in zip(before["bn_second"][:2], layer.weights[:2], strict=True):
        np.testing.assert_array_equal(new, old)


def test_frozen_and_shared_layers_shift_too_and_the_old_model_stays() -> None:
    inputs = nets.image()
    x = layers.Conv2D(6, 1, name="first")(inputs)
    shared = layers.Conv2D(6, 1, name="shared")
    norm = layers.BatchNormalization(name="norm", center=False, scale=False)
    for _ in range(2):
        x = layers.ReLU()(norm(shared(x)))
    model = randomize(keras.Model(inputs, layers.Conv2D(2, 1, name="end")(x)))
    norm.trainable = False
    asked = plan(model, {"first": [1, 2]})
    weights = [np.array(w) for w in model.weights]
    small = remove_filters(model, asked)
    old = np.array(normalizations(small)["norm"].moving_mean)
    shift_statistics(model, small, asked, BATCHES)
    assert not np.allclose(normalizations(small)["norm"].moving_mean, old, rtol=0.01)
    for before, after in zip(weights, model.weights, strict=True):
        np.testing.assert_array_equal(before, after)


def test_bad_input_is_named() -> None:
    model = nets.lite()
    asked, small = cut(model)
    with pytest.raises(PruneError, match="no images to calibrate on"):
        shift_statistics(model, small, asked, [])
    first, second = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    double = keras.Model([first, second], layers.Add()([first, second]), name="double")
    with pytest.raises(PruneError, match=r"'double'.*\n.*one input"):
        shift_statistics(double, double, plan(double, {}), BATCHES)


def test_layers_that_augment_do_nothing_while_statistics_are_shifted() -> None:
    """In a graph, Keras records training=True for each call of them."""
    pixels = nets.image()
    x = keras.Sequential([layers.RandomRotation(0.4)])(pixels)
    x = layers.BatchNormalization(name="before")(layers.Conv2D(6, 3, name="first")(x))
    x = layers.Conv2D(6, 3, name="last")(x)
    model = randomize(nets.classifier(pixels, x))
    asked = plan(model, {"last": [0, 1]})
    smaller = remove_filters(model, asked)
    kept = smaller.get_layer("before").moving_mean.numpy()
    shift_statistics(model, smaller, asked, BATCHES)
    np.testing.assert_array_equal(smaller.get_layer("before").moving_mean, kept)


@pytest.mark.parametrize("width", [8, 5])
def test_a_normalization_of_another_axis_keeps_its_statistics(width: int) -> None:
    """Whether or not its axis happens to be as long as there are channels."""
    pixels = nets.image()
    x = layers.Conv2D(width, 3, padding="same")(pixels)
    x = layers.BatchNormalization(axis=1, name="rows")(x)
    x = layers.Conv2D(6, 3, name="first", activation="relu")(x)
    x = layers.Conv2D(6, 3, name="last")(x)
    x = layers.BatchNormalization(name="channels")(x)
    model = randomize(nets.classifier(pixels, x))
    asked = plan(model, {"first": [0, 2]})
    smaller = remove_filters(model, asked)

    def reads(net: keras.Model) -> np.ndarray:
        inner = keras.Model(net.inputs[0], net.get_layer("last").output)
        return np.asarray(inner(BATCHES[0], training=False)).mean((0, 1, 2))

    shift = reads(smaller) - reads(model)
    before = {x.name: x.moving_mean.numpy() for x in normalizations(smaller).values()}
    shift_statistics(model, smaller, asked, BATCHES[:1])
    after = {x.name: x.moving_mean.numpy() for x in normalizations(smaller).values()}
    np.testing.assert_array_equal(after["rows"], before["rows"])
    np.testing.assert_allclose(after["channels"], before["channels"] + shift, rtol=1e-3, atol=1e-3)


def test_double_precision_is_shifted_in_double_precision() -> None:
    pixels = keras.Input((8, 8, 3), dtype="float64")
    x = layers.Conv2D(6, 3, name="first", dtype="float64")(pixels)
    x = layers.Conv2D(4, 3, dtype="float64")(x)
    x = layers.BatchNormalization(dtype="float64", name="bn")(x)
    model = keras.Model(pixels, layers.GlobalAveragePooling2D(dtype="float64")(x))
    asked = plan(model, {"first": [0]})
    smaller = remove_filters(model, asked)
    shift_statistics(model, smaller, asked, BATCHES)
    assert np.abs(smaller.get_layer("bn").moving_mean.numpy()).max() > 0
