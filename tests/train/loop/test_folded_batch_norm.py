from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kpipe.train import TrainingConfig, fit, folded_inference, fused_normalization
from kpipe.train.loop import fused_batch_norm
from kpipe.train.loop.folded_batch_norm import foldable, folded_normalization
from tests.train import tiny

LAYERS = keras.layers
SIDE = 6


def randomized(model: keras.Model) -> keras.Model:
    generator = np.random.default_rng(0)
    for variable in model.variables:
        if "float" in variable.dtype:
            variable.assign(generator.uniform(0.5, 2, variable.shape))
    return model


def network(conv: keras.Layer, norm: keras.Layer, channels: int = 4) -> keras.Model:
    """A convolution, a normalization that is frozen, and what makes the gradients differ."""
    norm.trainable = False
    pixels = keras.Input((SIDE, SIDE, channels))
    x = LAYERS.Activation("tanh")(norm(conv(pixels)))
    return randomized(keras.Model(pixels, LAYERS.GlobalAveragePooling2D()(x)))


def batch(channels: int = 4, count: int = 5) -> np.ndarray:
    shape = (count, SIDE, SIDE, channels)
    return np.random.default_rng(1).normal(0, 0.1, shape).astype("float32")


def step(model: keras.Model, x: np.ndarray) -> tuple[float, list[np.ndarray]]:
    """Loss of a training step, and the weights after it."""
    targets = np.zeros((len(x), model.output_shape[-1]), "float32")
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    loss = model.train_on_batch(x, targets)
    return float(loss), [np.array(weight) for weight in model.get_weights()]


def multiplications(model: keras.Model, x: np.ndarray) -> int:
    """Products as large as the convolution's output in the test step of the model."""
    model.compile(loss="mse")
    data = x, np.zeros((len(x), model.output_shape[-1]), "float32")
    graph = tf.function(lambda: model.test_step(data)).get_concrete_function().graph
    shapes = [one.outputs[0].shape for one in graph.get_operations() if one.type == "Mul"]
    return sum(shape.rank == 4 and shape[0] == len(x) for shape in shapes)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("depthwise", "own", "of_norm"),
    [
        (False, {"strides": 2, "padding": "same"}, {}),
        (False, {"groups": 2, "dilation_rate": 2}, {"scale": False, "epsilon": 0.1}),
        (True, {"strides": 2, "padding": "same"}, {"center": False}),
        (True, {"depth_multiplier": 2, "dilation_rate": 2}, {"scale": False, "center": False}),
    ],
)
def test_a_step_is_that_of_keras(
    bias: bool, depthwise: bool, own: dict[str, Any], of_norm: dict[str, Any]
) -> None:
    def made() -> keras.Model:
        layer = LAYERS.DepthwiseConv2D if depthwise else partial(LAYERS.Conv2D, 6)
        return network(layer(3, use_bias=bias, **own), LAYERS.BatchNormalization(**of_norm))

    expected = step(made(), batch())
    model = made()
    with fused_normalization(model):
        assert multiplications(model, batch()) == 0
        found = step(model, batch())
    assert found[0] == pytest.approx(expected[0], rel=1e-4)
    for mine, theirs in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
    assert multiplications(model, batch()) > 0
    assert len(foldable(model)) == 1


def conv(**options: Any) -> keras.Layer:
    return LAYERS.Conv2D(4, 3, padding="same", **options)


class OwnCall(keras.Model):
    """Reads the output of the convolution beside its normalization."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network(conv(), LAYERS.BatchNormalization())

    def call(self, x: Any) -> Any:
        return self.inner(x) + self.inner.layers[1](x)[:, 0, 0]


def read_twice(pixels: keras.KerasTensor) -> keras.KerasTensor:
    x = conv()(pixels)
    return LAYERS.Add()([x, LAYERS.BatchNormalization()(x)])


def called_twice(pixels: keras.KerasTensor) -> keras.KerasTensor:
    shared = conv()
    return LAYERS.BatchNormalization()(shared(shared(pixels)))


def norm_called_twice(pixels: keras.KerasTensor) -> keras.KerasTensor:
    norm = LAYERS.BatchNormalization()
    return norm(conv()(norm(conv()(pixels))))


def after(layer: Callable[..., Any]) -> Callable[..., Any]:
    return lambda pixels: LAYERS.BatchNormalization()(layer(pixels))


@pytest.mark.parametrize(
    "body",
    [
        read_twice,
        called_twice,
        norm_called_twice,
        after(conv(activation="relu")),
        after(conv(activity_regularizer="l2")),
        after(conv(dtype="mixed_bfloat16")),
        after(LAYERS.Conv2DTranspose(4, 3, padding="same")),
        after(LAYERS.SeparableConv2D(4, 3, padding="same")),
        after(LAYERS.ReLU()),
        after(lambda pixels: pixels),
        lambda pixels: LAYERS.BatchNormalization(axis=1)(conv()(pixels)),
        lambda pixels: LAYERS.BatchNormalization(dtype="float64")(conv()(pixels)),
    ],
)
def test_what_cannot_be_folded_runs_as_in_keras(body: Callable[..., Any]) -> None:
    pixels = keras.Input((SIDE, SIDE, 4))
    x = LAYERS.GlobalAveragePooling2D()(body(pixels))
    model = randomized(keras.Model(pixels, x))
    for layer in model.layers:
        layer.trainable = not isinstance(layer, LAYERS.BatchNormalization)
    assert foldable(model) == []
    model.compile(loss="mse")
    data = batch(), np.zeros((5, 4), "float32")
    expected = model.test_on_batch(*data)
    with fused_normalization(model):
        model.compile(loss="mse")
        assert model.test_on_batch(*data) == pytest.approx(expected, rel=1e-5)


def test_an_output_of_a_model_is_not_folded() -> None:
    model = network(conv(), LAYERS.BatchNormalization())
    assert len(foldable(model)) == 1
    features = model.layers[1].output
    both = keras.Model(model.input, [features, model.output])
    assert foldable(both) == []
    inner = keras.Sequential([keras.Input((SIDE, SIDE, 4)), conv()], name="inner")
    norm = LAYERS.BatchNormalization(trainable=False)
    outer = keras.Sequential([keras.Input((SIDE, SIDE, 4)), inner, norm])
    assert foldable(outer) == []


def test_pairs_within_nested_models_are_folded() -> None:
    inner = network(conv(), LAYERS.BatchNormalization())
    pixels = keras.Input((SIDE, SIDE, 4))
    outer = keras.Model(pixels, LAYERS.Dense(2)(inner(pixels)))
    assert [pair[0] for pair in foldable(outer)] == [inner.layers[1]]


def test_a_model_with_a_call_of_its_own_is_left_alone() -> None:
    assert foldable(OwnCall()) == []


def test_a_layer_that_holds_others_is_left_alone() -> None:
    class Tap(keras.layers.Layer):
        def __init__(self, inner: keras.Layer) -> None:
            super().__init__()
            self.inner = inner

        def call(self, x: Any) -> Any:
            return self.inner(x)

    pixels, layer = keras.Input((SIDE, SIDE, 4)), conv()
    norm = LAYERS.BatchNormalization(trainable=False)
    model = keras.Model(pixels, LAYERS.Add()([norm(layer(pixels)), Tap(layer)(pixels)]))
    assert foldable(model) == []


def test_a_training_step_of_its_own_is_left_alone() -> None:
    class Own(keras.Model):
        def train_step(self, data: Any) -> Any:
            return {"loss": tf.reduce_sum(self.layers[1](data[0]))}

    plain = network(conv(), LAYERS.BatchNormalization())
    model = Own(plain.input, plain.output)
    expected = model.train_step((batch(),))["loss"]
    with fused_normalization(model):
        np.testing.assert_allclose(model.train_step((batch(),))["loss"], expected)


def test_a_normalization_that_is_unfrozen_within_the_context_trains() -> None:
    model = network(conv(), LAYERS.BatchNormalization())
    before = np.array(model.layers[2].moving_mean)
    with fused_normalization(model):
        model.layers[2].trainable = True
        step(model, batch())
    assert np.abs(model.layers[2].moving_mean - before).max() > 1e-4


def test_normalizations_that_train_are_not_folded() -> None:
    model = network(conv(), LAYERS.BatchNormalization())
    model.layers[2].trainable = True
    assert foldable(model) == []


def test_only_the_steps_of_the_model_are_changed() -> None:
    """What a callback computes from the same layers is what Keras computes."""
    model = network(conv(), LAYERS.BatchNormalization())
    features = keras.Model(model.input, model.layers[1].output)
    expected, outputs = features(batch()), model(batch())
    seen: list[np.ndarray] = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch_number: int, logs: Any = None) -> None:
            seen.append(np.array(features(batch())))

    model.compile(keras.optimizers.SGD(0.0), "mse")
    with folded_normalization(model):
        np.testing.assert_array_equal(features(batch()), expected)
        np.testing.assert_array_equal(model(batch()), outputs)
        model.fit(batch(), np.zeros((5, 4)), verbose=0, callbacks=[Watch()])
    np.testing.assert_allclose(seen[0], expected, rtol=1e-6)
    assert "call" not in vars(model.layers[1]) and "train_step" not in vars(model)


def test_everything_is_restored_after_an_error() -> None:
    model = network(conv(), LAYERS.BatchNormalization())
    with pytest.raises(KeyError), fused_normalization(model), fused_normalization(model):
        raise KeyError
    for owner in (model, *model.layers):
        assert not {"call", "train_step", "test_step"} & set(vars(owner))


def test_fit_ends_with_the_weights_of_a_training_that_does_not_fold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def trained() -> list[np.ndarray]:
        model = tiny.model()
        norm = model.get_layer("norm")
        norm.moving_variance.assign(norm.moving_variance * 3)
        norm.trainable = False
        assert foldable(model)
        data = tiny.training_data(tiny.data, tiny.validation())
        result = fit(model, data, TrainingConfig(2, optimizer="sgd", learning_rate=0.05))
        return [*model.get_weights(), np.array(result.history["val_loss"])]

    folded = trained()
    monkeypatch.setattr(fused_batch_norm, "folded_normalization", lambda model: nullcontext())
    for mine, plain in zip(folded, trained(), strict=True):
        np.testing.assert_allclose(mine, plain, rtol=1e-4, atol=1e-6)


def test_inference_predicts_what_the_model_does_and_reads_its_weights() -> None:
    model = network(conv(), LAYERS.BatchNormalization())
    model.layers[2].trainable = True  # its statistics are constants in inference all the same
    predict = folded_inference(model)
    np.testing.assert_allclose(predict(batch()), model(batch()), rtol=1e-5)
    model.layers[2].moving_mean.assign([5.0, 6.0, 7.0, 8.0])
    np.testing.assert_allclose(predict(batch()), model(batch()), rtol=1e-5)
    np.testing.assert_allclose(predict(batch(count=2)), model(batch(count=2)), rtol=1e-5)
    operations = predict.get_concrete_function(tf.constant(batch())).graph.get_operations()
    shapes = [one.outputs[0].shape for one in operations if one.type == "Mul"]
    assert not any(shape.rank == 4 and shape[0] == len(batch()) for shape in shapes)
    assert not any("call" in vars(layer) for layer in model.layers)


def test_inference_of_a_model_with_a_call_of_its_own() -> None:
    model = OwnCall()
    np.testing.assert_allclose(folded_inference(model)(batch()), model(batch()), rtol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "MobileNetV2",
        "MobileNetV3Small",
        pytest.param("ResNet50V2", marks=pytest.mark.slow),
        pytest.param("DenseNet121", marks=pytest.mark.slow),
    ],
)
def test_networks_of_keras_are_folded(name: str) -> None:
    """DenseNet normalizes before each convolution, but for the one inside a block."""
    options: dict[str, Any] = {"weights": None, "classes": 3, "input_shape": (32, 32, 3)}
    model = randomized(getattr(keras.applications, name)(**options))
    norms = [one for one in model.layers if isinstance(one, LAYERS.BatchNormalization)]
    for norm in norms:
        norm.set_weights([np.abs(weight) / 10 + 0.9 for weight in norm.get_weights()])
    for layer in model.layers:
        if getattr(layer, "kernel", None) is not None:
            fan = np.prod(layer.kernel.shape[:-1])
            layer.kernel.assign(np.random.default_rng(2).normal(0, fan**-0.5, layer.kernel.shape))
    assert len(foldable(model, frozen=False)) > len(norms) / 3
    images = np.random.default_rng(3).uniform(0, 255, (4, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(folded_inference(model)(images), model(images), atol=2e-5)
