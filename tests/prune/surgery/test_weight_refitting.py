"""Refitted layers restore what a removal took; all others keep their weights to the bit."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers

from kpipe.errors import PruneError
from kpipe.prune import plan, refit_weights, remove_filters, shift_statistics
from kpipe.prune.graph.graph_reading import read
from kpipe.prune.surgery import weight_refitting
from tests.moving_statistics import set_moving_statistics
from tests.prune import nets
from tests.prune.masking import colored, random_request, randomize

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(0, 1, (60, 8, 8, 3)).astype("float32")
UNSEEN = RANDOM.normal(0, 1, (20, 8, 8, 3)).astype("float32")


def redundant(reader: Callable[[keras.KerasTensor], keras.KerasTensor]) -> keras.Model:
    """A network whose filter 3 answers what filters 0 and 1 answer together."""
    pixels = keras.Input((8, 8, 3))
    first = layers.Conv2D(4, 3, name="first")
    if isinstance(reader, layers.Layer):
        reader = reader.from_config(reader.get_config())
    model = randomize(keras.Model(pixels, reader(first(pixels))))
    for weight in first.weights:
        value = weight.numpy()
        value[..., 3] = value[..., 0] + value[..., 1]
        weight.assign(value)
    return model


def of_flat(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.Dense(2, name="reader")(layers.Flatten()(layers.AveragePooling2D(3)(x)))


READERS = {
    "pointwise": layers.Conv2D(5, 1, name="reader"),
    "without bias": layers.Conv2D(5, 1, use_bias=False, name="reader"),
    "strided": layers.Conv2D(5, 3, 2, padding="same", name="reader"),
    "dilated": layers.Conv2D(5, 2, dilation_rate=2, name="reader"),
    "activated": layers.Conv2D(5, 1, activation="relu", name="reader"),
    "dense": layers.Dense(5, name="reader"),
    "flattened": of_flat,
}


@pytest.mark.parametrize("reader", READERS)
def test_what_other_filters_know_is_restored(reader: str) -> None:
    model = redundant(READERS[reader])
    asked = plan(model, {"first": [3]})
    small = remove_filters(model, asked)
    before = np.abs(small(UNSEEN) - model(UNSEEN)).mean()
    refit_weights(model, small, asked, [IMAGES[:40], IMAGES[40:]])
    assert np.abs(small(UNSEEN) - model(UNSEEN)).mean() < before / 100


def test_it_is_ridge_regression_on_the_weights_that_are_left() -> None:
    """Written again with NumPy, over rows of pixels; the first half fits and the other chooses."""
    pixels = keras.Input((8, 8, 3))
    x = layers.ReLU()(layers.Conv2D(6, 1, name="first")(pixels))
    model = randomize(keras.Model(pixels, layers.Conv2D(2, 1, name="reader")(x)))
    asked = plan(model, {"first": [1, 4]})
    small = remove_filters(model, asked)

    def matrix(net: keras.Model) -> np.ndarray:
        kernel, bias = net.get_layer("reader").get_weights()
        return np.vstack([kernel[0, 0], bias]).astype("float64")

    read_by = keras.Model(model.inputs[0], model.get_layer("reader").input)(IMAGES).numpy()
    rows = np.concatenate([read_by, np.ones((*read_by.shape[:3], 1))], -1).astype("float64")
    left, targets = rows[..., [0, 2, 3, 5, 6]], rows @ matrix(model)

    def change(images: slice, ridge: float) -> np.ndarray:
        x = left[images].reshape(-1, 5)
        error = targets[images].reshape(-1, 2) - x @ matrix(small_before)
        size = ridge * np.trace(x.T @ x) / 5
        return np.linalg.solve(x.T @ x + np.diag([size] * 4 + [0]), x.T @ error)

    def held_out(ridge: float) -> float:
        weights = matrix(small_before) + change(slice(30), ridge)
        return float(np.square(targets[30:] - left[30:] @ weights).sum())

    small_before = remove_filters(model, asked)
    refit_weights(model, small, asked, [IMAGES[:7], IMAGES[7:]])
    best = min((1e-4, 1e-3, 1e-2, 1e-1, 1.0), key=held_out)
    expected = matrix(small_before) + change(slice(None), best)
    np.testing.assert_allclose(matrix(small), expected, rtol=1e-3, atol=1e-4)
    assert np.abs(expected - matrix(small_before)).max() > 0.01


def test_what_holds_for_some_images_alone_is_not_learned() -> None:
    """On half of the images, the filter that goes is the opposite of what it is on the others."""
    value = keras.Input((2,))
    first = layers.Dense(2, use_bias=False, name="first")
    reader = layers.Dense(1, use_bias=False, name="reader")
    model = keras.Model(value, reader(first(value)))
    first.kernel.assign(np.eye(2))
    signs = np.repeat([1, -1], 20)
    images = np.stack([np.linspace(1, 2, 40), signs * np.linspace(1, 2, 40)], 1)
    asked = plan(model, {"first": [1]})
    small = remove_filters(model, asked)
    kept = small.get_layer("reader").kernel.numpy()
    refit_weights(model, small, asked, [images.astype("float32")])
    np.testing.assert_array_equal(small.get_layer("reader").kernel, kept)


def test_a_removal_of_nothing_changes_nothing() -> None:
    model = randomize(nets.residual())
    asked = plan(model, {})
    small = remove_filters(model, asked)
    weights = [np.array(weight) for weight in small.weights]
    refit_weights(model, small, asked, [IMAGES])
    for weight, before in zip(small.weights, weights, strict=True):
        np.testing.assert_allclose(weight, before, rtol=1e-4, atol=1e-5)
    for name in ("kernel", "bias"):
        for layer in small.layers:
            if (found := getattr(layer, name, None)) is not None:
                np.testing.assert_array_equal(found, getattr(model.get_layer(layer.name), name))


OTHERS = {
    "grouped": layers.Conv2D(4, 1, groups=2, name="reader"),
    "depthwise": lambda x: layers.Conv2D(2, 1)(layers.DepthwiseConv2D(3, name="reader")(x)),
    "separable": layers.SeparableConv2D(4, 3, name="reader"),
    "transposed": layers.Conv2DTranspose(4, 3, name="reader"),
    "constrained": layers.Conv2D(4, 1, kernel_constraint="non_neg", name="reader"),
}


@pytest.mark.parametrize("reader", OTHERS)
def test_other_layers_keep_their_weights(reader: str) -> None:
    model = redundant(OTHERS[reader])
    asked = plan(model, {"first": [1, 3] if reader == "grouped" else [3]})
    small = remove_filters(model, asked)
    weights = small.get_layer("reader").get_weights()
    refit_weights(model, small, asked, [IMAGES])
    for weight, before in zip(small.get_layer("reader").get_weights(), weights, strict=True):
        np.testing.assert_array_equal(weight, before)


def test_a_shared_layer_and_one_of_too_many_inputs_keep_their_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pixels = keras.Input((8, 8, 3))
    shared, last = layers.Conv2D(4, 1, name="shared"), layers.Conv2D(2, 1, name="last")
    x = layers.Conv2D(4, 1, name="first")(pixels)
    model = randomize(keras.Model(pixels, last(shared(shared(x)))))
    monkeypatch.setattr(weight_refitting, "_MOST_INPUTS", 2)
    asked = plan(model, {"first": [0]})
    small = remove_filters(model, asked)
    weights = small.get_weights()
    refit_weights(model, small, asked, [IMAGES])
    for weight, before in zip(small.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(weight, before)


@pytest.mark.parametrize("net", nets.NETS)
def test_any_network_stays_nearer_to_what_it_was(net: str) -> None:
    build, _ = nets.NETS[net]
    model = randomize(build())
    shape = (64, *model.inputs[0].shape[1:])
    images = np.resize(colored(64, 8), shape)
    set_moving_statistics(model, images)
    asked = plan(model, random_request(model, 2))
    shifted, refitted = remove_filters(model, asked), remove_filters(model, asked)
    shift_statistics(model, shifted, asked, [images])
    weights = [np.array(weight) for weight in model.weights]
    refit_weights(model, refitted, asked, [images])

    def error(small: keras.Model) -> float:
        return float(np.square(small(images) - model(images)).mean())

    assert error(refitted) <= error(shifted) + 1e-9
    for weight, before in zip(model.weights, weights, strict=True):
        np.testing.assert_array_equal(weight, before)


def test_frozen_layers_are_refitted_and_stay_frozen() -> None:
    model = redundant(layers.Conv2D(5, 1, name="reader", trainable=False))
    asked = plan(model, {"first": [3]})
    small = remove_filters(model, asked)
    kept = small.get_layer("reader").kernel.numpy()
    refit_weights(model, small, asked, [(IMAGES, "labels")])
    assert not small.get_layer("reader").trainable
    assert np.abs(small.get_layer("reader").kernel - kept).max() > 0.1


def test_as_many_images_as_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = redundant(layers.Conv2D(5, 1))
    graph = read(model)
    # 8 x 8 x 3 numbers of the input and 6 x 6 x 4 of the first layer live at once; then 4 and 5.
    assert weight_refitting._bytes_alive(graph) == 4 * max(8 * 8 * 3 + 6 * 6 * 4, 6 * 6 * 9)
    monkeypatch.setattr(weight_refitting, "_MEMORY", 2 * 50 * weight_refitting._bytes_alive(graph))
    batches, used = [IMAGES[:32], IMAGES[32:]], weight_refitting._batches
    assert [len(batch) for batch in used(model, graph, batches)] == [25, 25]
    monkeypatch.setattr(weight_refitting, "_MEMORY", 0)
    assert [len(batch) for batch in used(model, graph, batches)] == [16, 16]


def test_bad_input_is_named() -> None:
    model = nets.lite()
    asked = plan(model, {})
    with pytest.raises(PruneError, match="no images"):
        refit_weights(model, remove_filters(model, asked), asked, [])
    with pytest.raises(PruneError, match="does not belong"):
        refit_weights(model, nets.residual(), asked, [IMAGES])
    plain = redundant(layers.Conv2D(5, 1, name="reader"))
    asked = plan(plain, {"first": [3]})
    narrower = redundant(layers.Conv2D(4, 1, name="reader"))
    small = remove_filters(narrower, plan(narrower, {"first": [3]}))
    with pytest.raises(PruneError, match=r"does not belong.*\n.*\n.*'reader'"):
        refit_weights(plain, small, asked, [IMAGES])
