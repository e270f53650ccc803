from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kpipe.train import fused_normalization


def operations(model: keras.Model, x: np.ndarray) -> list[str]:
    """Return the types of operations that a training batch runs."""
    step = tf.function(lambda x: model(x, training=True)).get_concrete_function(tf.constant(x))
    return [operation.type for operation in step.graph.get_operations()]


def one_layer(shape: tuple[int, ...], *, randomized: bool = True, **options: object) -> keras.Model:
    model = keras.Sequential(
        [keras.Input(shape), keras.layers.BatchNormalization(name="n", **options)]
    )
    if randomized:
        generator = np.random.default_rng(0)
        for variable in model.variables:
            variable.assign(generator.uniform(0.5, 2, variable.shape))
    return model


def step(model: keras.Model, x: np.ndarray) -> list[np.ndarray]:
    """Outputs, gradients to inputs and weights, and the moving statistics after a batch."""
    pixels = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(pixels)
        outputs = model(pixels, training=True)
        loss = tf.reduce_sum(tf.cast(outputs, "float32") * tf.reshape(_weights(x), x.shape))
    gradients = tape.gradient(loss, [pixels, *(v.value for v in model.trainable_variables)])
    return [np.array(v, "float64") for v in (outputs, *gradients, *model.non_trainable_variables)]


def _weights(x: np.ndarray) -> np.ndarray:
    return np.random.default_rng(9).normal(size=x.size).astype("float32")


@given(
    batch=st.integers(1, 5),
    side=st.integers(1, 6),
    channels=st.integers(1, 9),
    momentum=st.sampled_from([0.0, 0.5, 0.99]),
    epsilon=st.sampled_from([1e-5, 1e-3, 0.1]),
    scale=st.booleans(),
    center=st.booleans(),
    dtype=st.sampled_from(["float32", "mixed_float16", "mixed_bfloat16"]),
)
@settings(max_examples=60, deadline=None)
def test_outputs_gradients_and_statistics_are_those_of_keras(
    batch, side, channels, momentum, epsilon, scale, center, dtype
) -> None:
    options = {"momentum": momentum, "epsilon": epsilon, "scale": scale, "center": center}
    x = np.random.default_rng(batch).normal(3, 2, (batch, side, side, channels)).astype("float32")
    expected = step(one_layer(x.shape[1:], dtype=dtype, **options), x)
    model = one_layer(x.shape[1:], dtype=dtype, **options)
    with fused_normalization(model):
        assert "FusedBatchNormV3" in operations(model, x)
        found = step(model, x)
    tolerance = 2e-4 if dtype == "float32" else 2e-2
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance)


def test_statistics_are_those_of_numpy() -> None:
    x = np.random.default_rng(1).normal(3, 2, (2, 3, 3, 4)).astype("float32")
    model = one_layer((3, 3, 4), momentum=0.75, randomized=False)
    with fused_normalization(model):
        model(x, training=True)
    layer = model.get_layer("n")
    np.testing.assert_allclose(layer.moving_mean, 0.25 * x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, 0.75 + 0.25 * x.var((0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((4, 4, 3), {"trainable": False}),
        ((4, 4, 3), {"renorm": True}),
        ((4, 4, 3), {"axis": 1}),
        ((4, 4, 3), {"dtype": "float64"}),
        ((4, 4, 3), {"synchronized": True}),
        ((5,), {}),
        ((6, 3), {}),
        ((2, 4, 4, 3), {}),
    ],
)
def test_unsupported_layers_run_as_in_keras(shape, options) -> None:
    x = np.random.default_rng(2).normal(size=(3, *shape)).astype("float32")
    expected = one_layer(shape, **options)
    model = one_layer(shape, **options)
    with fused_normalization(model):
        np.testing.assert_array_equal(model(x, training=True), expected(x, training=True))
        assert "FusedBatchNormV3" not in operations(model, x)
    for mine, theirs in zip(model.variables, expected.variables, strict=True):
        np.testing.assert_allclose(mine, theirs)


def test_masked_positions_do_not_count_in_the_statistics() -> None:
    x = np.random.default_rng(2).normal(size=(3, 4, 4, 3)).astype("float32")
    mask = np.random.default_rng(3).uniform(size=(3, 4, 4)) > 0.5
    expected, layer = one_layer((4, 4, 3)).get_layer("n"), one_layer((4, 4, 3)).get_layer("n")
    wrapped = keras.Sequential([keras.Input((4, 4, 3)), layer])
    with fused_normalization(wrapped):
        found = layer(x, training=True, mask=tf.constant(mask))
    np.testing.assert_array_equal(found, expected(x, training=True, mask=tf.constant(mask)))


def nested() -> keras.Model:
    """A normalization in a nested model, and one that is called twice."""
    keras.utils.set_random_seed(0)
    inner = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            keras.layers.Conv2D(4, 3, padding="same"),
            keras.layers.BatchNormalization(),
        ]
    )
    shared = keras.layers.BatchNormalization()
    pixels = keras.Input((8, 8, 3))
    x = inner(shared(keras.layers.Conv2D(4, 1)(pixels)))
    x = keras.layers.ReLU()(shared(x))
    answers = keras.layers.Dense(2, activation="softmax")(keras.layers.GlobalMaxPooling2D()(x))
    return keras.Model(pixels, answers)


def test_training_equals_that_of_keras_and_leaves_no_trace(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")
    y = (x.mean((1, 2, 3)) > 0).astype("int32")
    models = {"keras": nested(), "fused": nested()}
    for name, model in models.items():
        model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
        if name == "fused":
            with fused_normalization(model):
                model.fit(x, y, epochs=3, batch_size=8, shuffle=False, verbose=0)
        else:
            model.fit(x, y, epochs=3, batch_size=8, shuffle=False, verbose=0)
    for mine, theirs in zip(models["fused"].weights, models["keras"].weights, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-4)
    model = models["fused"]
    assert all("call" not in vars(layer) for layer in model._flatten_layers())
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(again(x, training=False), model(x, training=False))
    assert "FusedBatchNormV3" not in operations(again, x)


def test_layers_are_restored_after_an_error() -> None:
    model = nested()
    with pytest.raises(RuntimeError, match="cut"), fused_normalization(model):
        raise RuntimeError("cut")
    assert all("call" not in vars(layer) for layer in model._flatten_layers())


def test_contexts_may_be_nested() -> None:
    model = nested()
    x = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32")
    with fused_normalization(model):
        with fused_normalization(model):
            pass
        assert "FusedBatchNormV3" in operations(model, x)
    assert all("call" not in vars(layer) for layer in model._flatten_layers())


def test_a_custom_call_is_kept() -> None:
    model = one_layer((4, 4, 3))
    layer = model.get_layer("n")
    object.__setattr__(layer, "call", own := lambda inputs, training=None, mask=None: inputs)
    with fused_normalization(model):
        assert layer.call is own
    assert layer.call is own


def test_channels_may_be_unknown_until_a_batch_comes() -> None:
    x = np.random.default_rng(2).normal(size=(3, 4, 4, 3)).astype("float32")
    expected, layer = one_layer((4, 4, 3)), one_layer((4, 4, 3)).get_layer("n")
    model = keras.Sequential([keras.Input((4, 4, 3)), layer])

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, None), tf.float32)])
    def step(x: tf.Tensor) -> tf.Tensor:
        return layer(x, training=True)

    with fused_normalization(model):
        np.testing.assert_allclose(step(x), expected(x, training=True), atol=1e-5)


def test_a_subclass_of_the_layer_is_not_replaced() -> None:
    class Louder(keras.layers.BatchNormalization):
        def call(self, inputs, training=None, mask=None):
            return 2 * super().call(inputs, training=training, mask=mask)

    layer = Louder(name="loud")
    model = keras.Sequential([keras.Input((4, 4, 3)), layer])
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 3)).astype("float32")
    with fused_normalization(model):
        assert "FusedBatchNormV3" not in operations(model, x)
        assert np.std(model(x, training=True)) > 1.5
