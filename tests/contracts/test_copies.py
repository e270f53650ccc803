"""The contract of every place that copies a model: the copy predicts the same, to the bit.

The networks hold every layer of Keras that an image network can have and that computes with more
than its weights: state derived from them, vocabularies, merged or quantized weights.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from kpipe.ensemble import average, vote
from kpipe.errors import TrainingError
from kpipe.keras_copies import copy_model, copy_state
from kpipe.prune import plan, remove_filters
from kpipe.sparsity import to_keras, to_tf_keras
from kpipe.train import (
    Distiller,
    TrainingConfig,
    backbone,
    backbone_names,
    classifier,
    fit,
    resize,
)
from tests.contracts.test_backbones import FAMILIES
from tests.train import tiny

SIZE = 8
IMAGES = np.random.default_rng(0).uniform(0, 255, (4, SIZE, SIZE, 3)).astype("float32")


class Halves(layers.Layer):
    """A custom layer that derives state from its weight, and keeps some beside it; unregistered."""

    offset = 0.0

    def build(self, shape) -> None:
        self.scale = self.add_weight(shape=(), initializer="ones")
        self.half = 0.5

    def adapt(self, scale: float, offset: float) -> None:
        self.scale.assign(scale)
        self.half, self.offset = scale / 2, offset

    def call(self, x):
        return x * self.half + self.offset

    def save_own_variables(self, store) -> None:
        super().save_own_variables(store)
        store["offset"] = np.array(self.offset)

    def load_own_variables(self, store) -> None:
        super().load_own_variables({"0": store["0"]})
        self.half, self.offset = float(self.scale) / 2, float(store["offset"])


def adapted(layer: layers.Layer, images: np.ndarray = IMAGES) -> layers.Layer:
    layer.adapt(images)
    return layer


def normalization(x):
    return adapted(layers.Normalization())(x)


def normalization_of_all_axes(x):
    return adapted(layers.Normalization(axis=None, invert=True))(x)


def nested_normalizations(x):
    inside = keras.Input((SIZE, SIZE, 3))
    block = keras.Model(inside, normalization(inside))
    return keras.Sequential([keras.Input((SIZE, SIZE, 3)), block])(x)


def wrapped_normalization(x):
    return layers.TimeDistributed(adapted(layers.Normalization(), IMAGES[0]))(x)


def discretization(x):
    return layers.Rescaling(0.1)(adapted(layers.Discretization(num_bins=7), IMAGES.ravel())(x))


def integer_lookup(x):
    lookup = layers.IntegerLookup(num_oov_indices=1)
    lookup.adapt(IMAGES[:2].astype("int64").ravel())
    return layers.Rescaling(0.1)(lookup(keras.ops.cast(x, "int64")))


def custom_layer(x):
    layer = Halves()
    x = layer(x)
    layer.adapt(3.0, 2.0)
    return x


def python_lambda(x):
    scale = 127.5
    return layers.Lambda(lambda pixels: pixels / scale - 1)(x)


def spectral_normalization(x):
    layer = layers.SpectralNormalization(layers.Conv2D(3, 3))
    x = layer(x)
    layer(IMAGES / 255, training=True)
    return x


def low_rank(x):
    layer = layers.Dense(3)
    x = layer(x)
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(np.ones(layer.lora_kernel_b.shape))
    return x


def quantized(x):
    layer = layers.Dense(3)
    x = layer(x)
    layer.quantize("int8")
    return x


NETWORKS = [
    normalization,
    normalization_of_all_axes,
    nested_normalizations,
    wrapped_normalization,
    discretization,
    integer_lookup,
    custom_layer,
    python_lambda,
    spectral_normalization,
    low_rank,
    quantized,
]
BRIDGED = NETWORKS[:3]  # the others have no equivalent in tf_keras


def network(start: Callable) -> keras.Model:
    keras.utils.set_random_seed(1)
    pixels = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(4, 3, activation="relu")(start(pixels))
    x = layers.BatchNormalization()(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(pixels, layers.Dense(3, activation="softmax")(x))


def distilled(model: keras.Model) -> keras.Model:
    """Return the student; the distiller itself must predict the same."""
    teacher = copy_model(model, TrainingError)
    distiller = Distiller(model, teacher, [IMAGES])
    targets, _ = distiller._targets(IMAGES)
    np.testing.assert_array_equal(targets, model(IMAGES))
    np.testing.assert_array_equal(distiller(IMAGES), model(IMAGES))
    return teacher


def voted(model: keras.Model) -> keras.Model:
    """Return the member; the vote of two equal members is a function of it."""
    combined = vote([model, model])
    marks = np.eye(3)[np.argmax(model(IMAGES), axis=-1)]
    expected = 0.99 * marks + 0.01 * np.asarray(model(IMAGES))
    np.testing.assert_allclose(combined(IMAGES), expected, atol=1e-6)
    return next(layer for layer in combined.layers if layer.name == "member_2")


def built_again(model: keras.Model) -> keras.Model:
    """Copy the state to a model of the same layers, as after training at low resolution."""
    other = copy_model(model, TrainingError)
    for layer in other._flatten_layers():
        if isinstance(layer, layers.Normalization):
            layer.adapt(np.zeros([size or 2 for size in layer._build_input_shape]))
    copy_state(model, other)
    return other


PLACES = {
    "copy_model": lambda model: copy_model(model, TrainingError),
    "copy_state": built_again,
    "average": lambda model: average([model, model]),
    "vote": voted,
    "resize": lambda model: resize(resize(model, SIZE + 4), SIZE),
    "remove_filters": lambda model: remove_filters(model, plan(model, {})),
    "distiller": distilled,
}
BRIDGES = {
    "to_tf_keras": to_tf_keras,
    "to_keras": lambda model: to_keras(to_tf_keras(model)),
    "to_keras by template": lambda model: to_keras(to_tf_keras(model), template=model),
}


def check(model: keras.Model, copied: keras.Model, images: np.ndarray, folder: Path) -> None:
    expected = model(images).numpy()
    np.testing.assert_array_equal(copied(images), expected)
    if not isinstance(copied, keras.Model):  # a twin in tf_keras
        return
    copied.save(folder / "copy.keras")
    loaded = keras.models.load_model(
        folder / "copy.keras", custom_objects={"Halves": Halves}, safe_mode=False
    )
    np.testing.assert_array_equal(loaded(images), expected)


@pytest.mark.parametrize("start", NETWORKS)
@pytest.mark.parametrize("place", PLACES)
def test_a_copy_predicts_the_same(place: str, start: Callable, tmp_path: Path) -> None:
    model = network(start)
    check(model, PLACES[place](model), IMAGES, tmp_path)


@pytest.mark.parametrize("start", BRIDGED)
@pytest.mark.parametrize("place", BRIDGES)
def test_a_twin_predicts_the_same(place: str, start: Callable, tmp_path: Path) -> None:
    model = network(start)
    check(model, BRIDGES[place](model), IMAGES, tmp_path)


def test_a_resumed_training_run_derives_state_from_the_checkpoint(tmp_path: Path) -> None:
    def model(statistics: np.ndarray) -> keras.Model:
        keras.utils.set_random_seed(1)
        pixels = keras.Input((8, 8, 3))
        x = adapted(layers.Normalization(), statistics)(pixels)
        x = layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(x))
        return keras.Model(pixels, x)

    config = TrainingConfig(epochs=1)
    first, again = model(tiny.IMAGES), model(np.zeros((2, 8, 8, 3)))
    for each in (first, again):
        fit(each, tiny.training_data(), config, folder=tmp_path)
    np.testing.assert_array_equal(again(tiny.IMAGES), first(tiny.IMAGES))


# Large ones need gigabytes and minutes: KPIPE_EVERY_BACKBONE=1 copies all of them too.
COPIED = (
    backbone_names()
    if os.environ.get("KPIPE_EVERY_BACKBONE")
    else (*FAMILIES, "ConvNeXtTiny", "EfficientNetB0", "Xception")
)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == "MobileNet" else pytest.mark.slow) for name in COPIED],
)
def test_backbones_are_copied_exactly(name: str, tmp_path: Path) -> None:
    size = 32 if name in FAMILIES else 96
    base = backbone(name, image_size=size, weights=None, **FAMILIES.get(name, {}))
    model = classifier(base, 3, seed=1)
    images = np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype("float32")
    generator = np.random.default_rng(1)
    for weight in model.weights:  # new weights are zeros and ones in many places
        noise = generator.normal(0, 0.01, weight.shape)
        # Noise of one sign on every weight would overflow the deepest networks.
        noise = np.abs(noise) if "variance" in weight.path else noise
        weight.assign(weight + noise.astype(weight.dtype))
    for layer in model.layers:
        # ConvNeXt has one of a given mean and variance.
        if isinstance(layer, layers.Normalization) and layer.input_mean is None:
            layer.adapt(images / 255)
    copies = {
        "average": average([model, model]),
        "resize": resize(model, size),
        "remove_filters": remove_filters(model, plan(model, {})),
        "to_keras": to_keras(to_tf_keras(model), template=model),
    }
    assert np.isfinite(model(images)).all()
    for copied in copies.values():
        np.testing.assert_array_equal(copied(images), model(images))
    check(model, copies["average"], images, tmp_path)
