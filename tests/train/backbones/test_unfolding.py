"""Composite layers unfolded into those that they call."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from kpipe.errors import WeightsError
from kpipe.train.backbones.unfolding import unfold
from tests.prune.masking import randomize

SIZE = 8
IMAGES = np.random.default_rng(0).normal(size=(2, SIZE, SIZE, 4)).astype("float32")


class Affine(layers.Layer):
    def build(self, shape) -> None:
        self.scale = self.add_weight(name="scale", shape=(), initializer="ones")
        self.bias = self.add_weight(name="bias", shape=(), initializer="zeros")

    def call(self, x):
        return self.scale * x + self.bias


class DropPath(layers.Layer):
    def __init__(self, rate: float, **options) -> None:
        super().__init__(**options)
        self.rate = rate

    def call(self, x, training=None):
        raise AssertionError("it is replaced, not called")


class Inner(layers.Layer):
    """Convolution, normalization, activation; the activation is called twice."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.conv = layers.Conv2D(8, 3, padding="same", name=f"{self.name}_conv")
        self.norm = layers.BatchNormalization(name=f"{self.name}_norm")
        self.act = layers.ReLU(name=f"{self.name}_act")
        self.same = layers.Identity()
        self.affine = Affine(name=f"{self.name}_affine")

    def call(self, x, training=None):
        x = self.act(self.norm(self.conv(x), training=training))
        return self.affine(self.act(self.same(x) - 0.5))


class Outer(layers.Layer):
    """Composite layers within a composite layer, around raw operations."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.first = Inner(name=f"{self.name}_first")
        self.second = Inner(name=f"{self.name}_second")

    def call(self, x, training=None):
        x = self.first(x, training=training)
        return x + self.second(x, training=training) * keras.ops.mean(x, axis=(1, 2), keepdims=True)


def unfolded(model: keras.Model, size: int = SIZE) -> keras.Model:
    pixels = keras.Input((size, size, 4))
    return keras.Model(pixels, unfold(model, pixels))


def network(*stack: layers.Layer) -> keras.Model:
    return randomize(keras.Sequential([keras.Input((None, None, 4)), *stack]))


def test_composite_layers_within_composite_layers_are_opened_exactly() -> None:
    model = network(Outer(name="a"), Outer(name="b"))
    flat = unfolded(model)
    assert all(type(operation).__module__.startswith("keras.") for operation in flat.operations)
    expected = model(IMAGES).numpy()
    assert np.abs(flat(IMAGES) - expected).max() <= 1e-6 * np.abs(expected).max()
    # The Affine layers have one weight for each channel, which they had one for all of.
    assert flat.count_params() == model.count_params() + 4 * 2 * (8 - 1)
    kinds = [type(layer).__name__ for layer in flat.layers]
    assert kinds.count("DepthwiseConv2D") == 4  # the Affine layers
    assert "Identity" not in kinds


def test_training_behaves_alike() -> None:
    model = network(Outer(name="a"))
    flat = unfolded(model)
    np.testing.assert_allclose(flat(IMAGES, training=True), model(IMAGES, training=True), 1e-4)
    ours, theirs = (
        {layer.name: layer.moving_mean for layer in each._flatten_layers() if "norm" in layer.name}
        for each in (flat, model)
    )
    assert len(ours) == len(theirs) == 2
    for name, mean in ours.items():
        np.testing.assert_allclose(mean, theirs[name], rtol=1e-4, atol=1e-6)


def test_nothing_is_shared_with_the_model_and_another_size_works() -> None:
    model = network(Outer(name="a"))
    flat = unfolded(model, 12)
    assert flat.input_shape == (None, 12, 12, 4)
    assert not {id(w) for w in flat.weights} & {id(w) for w in model.weights}


@pytest.mark.parametrize("multiplier", [1, 2])
def test_a_convolution_with_a_group_for_each_channel_is_depthwise(multiplier: int) -> None:
    conv = layers.Conv2D(4 * multiplier, 3, strides=2, groups=4, activation="relu")
    model = network(conv)
    flat = unfolded(model)
    assert isinstance(flat.layers[1], layers.DepthwiseConv2D)
    np.testing.assert_allclose(flat(IMAGES), model(IMAGES), rtol=1e-5, atol=1e-6)


def test_padding_by_minus_infinity_before_a_max_pooling_becomes_finite() -> None:
    pixels = keras.Input((SIZE, SIZE, 4))
    padded = keras.ops.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    model = keras.Model(pixels, layers.MaxPooling2D(3, strides=2)(padded))
    flat = unfolded(model)
    below = IMAGES - 10  # zeros around these would be maxima
    np.testing.assert_array_equal(flat(below), model(below))
    assert np.isfinite(keras.Model(flat.input, flat.layers[-1].input)(below)).all()


def test_stochastic_depth_drops_whole_images_in_training_alone() -> None:
    pixels = keras.Input((SIZE, SIZE, 4))
    model = keras.Model(pixels, unfold(_uncalled(pixels, DropPath(0.5)), pixels))
    np.testing.assert_array_equal(model(IMAGES), IMAGES)
    many = np.ones((64, SIZE, SIZE, 4), "float32")
    dropped = model(many, training=True).numpy().reshape(64, -1)
    assert set(np.unique(dropped)) == {0.0, 2.0}
    assert (np.ptp(dropped, axis=1) == 0).all()
    assert unfold(_uncalled(pixels, DropPath(0.0)), pixels) is pixels


def _uncalled(pixels: keras.KerasTensor, layer: DropPath) -> keras.Model:
    """Return a model of a layer that was built without being called."""
    layer.compute_output_spec = lambda x, training=None: keras.KerasTensor(x.shape, x.dtype)
    return keras.Model(pixels, layer(pixels))


class Table(layers.Layer):
    def build(self, shape) -> None:
        self.table = self.add_weight(name="table", shape=(shape[-1],))

    def call(self, x):
        return x * self.table


class Noise(layers.Layer):
    def call(self, x, training=None):
        return x + 1 if training else x


@pytest.mark.parametrize(("layer", "reason"), [(Table(), "weights"), (Noise(), "in training")])
def test_what_would_change_is_refused(layer: layers.Layer, reason: str) -> None:
    with pytest.raises(WeightsError, match=reason) as caught:
        unfolded(network(layer))
    assert type(layer).__name__ in str(caught.value)
