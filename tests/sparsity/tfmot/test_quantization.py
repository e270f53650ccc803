from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.applications.convnext import LayerScale
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

from kpipe.errors import SparsityError
from kpipe.lite import LiteModel
from kpipe.lite.export.calibration_images import prepare_calibration_images
from kpipe.lite.export.conversion import calibrate
from kpipe.lite.int8.quantizing import quantize_to_int8
from kpipe.sparsity import TrainingSettings, train_quantized
from kpipe.sparsity.tfmot import quantization
from tests.sparsity.conftest import (
    Killed,
    batches,
    killed_after,
    pixels,
    seeded,
    small_classifier,
    sparse_classifier,
)

QUICK = {"epochs": 2, "steps_per_epoch": 4}
FAST = {"settings": TrainingSettings(learning_rate=1e-3)}


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return small_classifier()


@pytest.fixture(scope="module")
def trained(model: keras.Model) -> keras.Model:
    return train_quantized(model, batches, **QUICK, **FAST)


@pytest.mark.slow
def test_every_weight_comes_back_where_it_was(model):
    """At hardly any rate, what is trained stays, kernels and all."""
    still = train_quantized(model, batches, **QUICK, settings=TrainingSettings(learning_rate=1e-9))
    assert [layer.name for layer in still.layers] == [layer.name for layer in model.layers]
    for before, after in zip(model.trainable_weights, still.trainable_weights, strict=True):
        assert before.path == after.path
        np.testing.assert_allclose(after, before, atol=1e-6)


def test_every_layer_learns_and_the_original_is_left_alone(model, trained):
    for before, after in zip(model.trainable_weights, trained.trainable_weights, strict=True):
        assert not np.array_equal(before, after), before.path
    for untouched, weight in zip(small_classifier().weights, model.weights, strict=True):
        np.testing.assert_array_equal(untouched, weight)


def tinted(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy patches of one tint, and whether they are more red and green than blue."""
    rng = np.random.default_rng(seed)
    tint = rng.uniform(60, 196, (count, 1, 1, 3))
    images = np.clip(tint + rng.normal(0, 20, (count, 16, 16, 3)), 0, 255).astype("float32")
    red, green, blue = tint[:, 0, 0].T
    return images, (red + 0.3 * green > blue + 38).astype("int64")


def with_coarse_steps(seed: int) -> keras.Model:
    """A weight far from the others, of which nothing comes, leaves few steps for the rest."""
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="stem")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(2, activation="softmax", name="top")(x)
    model = seeded(keras.Model(inputs, outputs), seed)
    kernel, bias = model.get_layer("top").kernel.numpy(), model.get_layer("stem").bias.numpy()
    kernel[0], bias[0] = 200.0, -60.0
    model.get_layer("top").kernel.assign(kernel)
    model.get_layer("stem").bias.assign(bias)
    return model


@pytest.mark.slow
def test_training_feels_what_int8_does(monkeypatch):
    """The emulated answers are near those of int8, where the model's own are far from them.

    Of int8 between the ranges that were seen, as TFMOT knows no others.
    """
    twins = []
    unwrapped = quantization._unwrap

    def noted(twin, plain):
        twins.append(twin)
        return unwrapped(twin, plain)

    monkeypatch.setattr(quantization, "_unwrap", noted)
    data = tf.data.Dataset.from_tensor_slices(tinted(1, 256)).batch(32)
    images, _ = tinted(99, 64)
    for seed in range(3):
        settings = TrainingSettings(learning_rate=0.01)
        model = train_quantized(
            with_coarse_steps(seed), data, epochs=1, steps_per_epoch=8, settings=settings
        )
        seen = prepare_calibration_images([tinted(1, 64)[0]], (16, 16, 3))
        file = LiteModel(quantize_to_int8(calibrate(model, seen))).predict(images)
        felt = np.abs(twins[-1](images, training=False).numpy() - file).mean()
        unfelt = np.abs(model(images, training=False).numpy() - file).mean()
        assert felt < 0.25 * unfelt


@pytest.mark.slow
def test_ranges_are_measured_before_anything_is_learned(monkeypatch):
    """TFMOT would begin at -6 to 6, and a short training with clipped activations."""
    model = small_classifier()
    (depthwise,) = model.get_layer("depthwise").weights[:1]
    depthwise.assign(depthwise * 100)
    (add,) = (layer for layer in model.layers if isinstance(layer, keras.layers.Add))
    twins = []
    measured = quantization._measure_ranges

    def noted(twin, data):
        measured(twin, data)
        twins.append({w.name: w.numpy() for w in twin.get_layer(f"quant_{add.name}").weights})

    monkeypatch.setattr(quantization, "_measure_ranges", noted)
    train_quantized(model, batches, **QUICK)
    (largest,) = (value for name, value in twins[0].items() if "max" in name)
    added = keras.Model(model.input, add.output)
    found = [added(images, training=False).numpy().max() for images, _ in batches(0).take(8)]
    assert float(largest) > 100
    assert float(largest) == pytest.approx(np.mean(found), rel=0.05)


@pytest.mark.slow
def test_killed_training_continues_and_ends_as_if_never_killed(tmp_path, model, trained):
    settings = TrainingSettings(learning_rate=1e-3, on_epoch=killed_after(0))
    with pytest.raises(Killed):
        train_quantized(model, batches, **QUICK, settings=settings, folder=tmp_path)
    resumed = train_quantized(model, batches, **QUICK, **FAST, folder=tmp_path)
    for old, new in zip(trained.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)

    def never(first_epoch: int) -> tf.data.Dataset:
        raise AssertionError("a finished training needs no data")

    again = train_quantized(model, never, **QUICK, **FAST, folder=tmp_path)
    np.testing.assert_array_equal(again.get_weights()[0], trained.get_weights()[0])


@pytest.mark.slow
def test_what_tfmot_does_not_know_computes_as_before():
    """Raw operations, Multiply, nonlinearities of Keras 3, normalizations without a convolution."""

    def outputs(x):
        x = keras.layers.BatchNormalization(name="first")(keras.layers.Rescaling(1 / 255)(x))
        y = keras.layers.Conv2D(4, 3, padding="same", name="conv")(x)
        y = keras.layers.Activation("hard_sigmoid")(keras.layers.BatchNormalization()(y))
        y = keras.layers.Multiply()([y, keras.layers.Dense(4, "gelu", name="dense")(x)])
        y = keras.layers.SeparableConv2D(4, 3, name="separable")(y * 2.0 + x[:, :, :, :1])
        return keras.layers.Dense(2, "softmax", name="top")(
            keras.layers.GlobalMaxPooling2D()(keras.layers.LayerNormalization()(y))
        )

    inputs = keras.Input((16, 16, 3))
    model = seeded(keras.Model(inputs, outputs(inputs)))
    still = train_quantized(model, batches, **QUICK, settings=TrainingSettings(learning_rate=1e-9))
    for before, after in zip(model.trainable_weights, still.trainable_weights, strict=True):
        np.testing.assert_allclose(after, before, atol=1e-6)
    assert still(pixels(2)).shape == (2, 2)


def test_layers_of_keras_applications_are_rebuilt():
    """LayerScale is in ConvNeXt, CustomScaleLayer in InceptionResNetV2."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    x = CustomScaleLayer(0.5)([LayerScale(0.5, 4)(x), x])
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="top")(x))
    data = tf.data.Dataset.from_tensors((np.ones((4, 8, 8, 3), "float32"), [0, 1, 0, 1])).repeat()
    still = TrainingSettings(learning_rate=1e-9)
    trained = train_quantized(model, data, epochs=1, steps_per_epoch=1, settings=still)
    images = np.random.default_rng(0).uniform(size=(3, 8, 8, 3))
    np.testing.assert_allclose(trained(images), model(images), atol=1e-4)


def test_a_model_that_tfmot_cannot_rebuild_is_refused(monkeypatch):
    monkeypatch.setattr(quantization, "_UNREGISTERED", {})
    inputs = keras.Input((8, 8, 3))
    x = LayerScale(0.5, 4)(keras.layers.Conv2D(4, 3, name="conv")(inputs))
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="top")(x))
    data = tf.data.Dataset.from_tensors((np.ones((4, 8, 8, 3), "float32"), [0, 1, 0, 1])).repeat()
    with pytest.raises(SparsityError, match="cannot rebuild"):
        train_quantized(model, data, epochs=1, steps_per_epoch=1)


def test_a_layer_that_stands_twice_is_trained_once():
    inputs = keras.Input((16, 16, 3))
    shared = keras.layers.Conv2D(3, 3, padding="same", name="shared")
    x = shared(shared(keras.layers.Rescaling(1 / 255)(inputs)))
    x = keras.layers.Dense(2, "softmax", name="top")(keras.layers.GlobalAveragePooling2D()(x))
    model = seeded(keras.Model(inputs, x))
    result = train_quantized(model, batches, **QUICK, **FAST)
    assert not np.array_equal(model.get_layer("shared").kernel, result.get_layer("shared").kernel)


def test_zeros_of_a_pruned_model_stay():
    sparse = sparse_classifier()
    result = train_quantized(sparse, batches, **QUICK, **FAST)
    for name in ("stem", "top"):
        before, after = (m.get_layer(name).kernel.numpy() for m in (sparse, result))
        np.testing.assert_array_equal(after == 0, before == 0)
        assert not np.any((after == before) & (before != 0))


def test_models_inside_are_refused_with_the_way_out():
    inner = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Conv2D(3, 3)], name="inner")
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.GlobalAveragePooling2D()(inner(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, "softmax")(x))
    with pytest.raises(SparsityError, match="contains nested models: inner") as caught:
        train_quantized(model, batches, **QUICK)
    assert "remove_filters" in str(caught.value)


def test_nothing_to_quantize_is_refused():
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, keras.layers.LayerNormalization()(inputs))
    with pytest.raises(SparsityError, match="nothing in"):
        train_quantized(model, batches, **QUICK)


def attention(dropout: float = 0.0) -> keras.Model:
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, padding="same")(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.Reshape((-1, 4))(x)
    x = keras.layers.MultiHeadAttention(4, 4, use_bias=False, dropout=dropout, name="mha")(x, x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    return seeded(keras.Model(inputs, keras.layers.Dense(2, "softmax", name="top")(x)))


@pytest.mark.slow
def test_weights_of_one_name_in_a_layer_are_told_apart():
    model = attention()
    still = train_quantized(model, batches, **QUICK, settings=TrainingSettings(learning_rate=1e-9))
    for before, after in zip(model.get_weights(), still.get_weights(), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-6)


def test_draws_that_no_checkpoint_holds_are_refused():
    with pytest.raises(SparsityError, match="mha contains dropout"):
        train_quantized(attention(0.5), batches, **QUICK)


@pytest.mark.parametrize("data", [(pixels(8), np.zeros(8)), [1, 2], lambda epoch: [pixels(8)]])
def test_data_that_are_no_dataset_are_refused(model, data):
    with pytest.raises(SparsityError, match=r"from_tensor_slices"):
        train_quantized(model, data, **QUICK)
