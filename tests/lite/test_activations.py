from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest

from kpipe.lite import LiteModel, convert
from kpipe.lite.activations import delegable_activations
from tests.lite.conftest import photos, seeded

ENDS = {"QUANTIZE", "SOFTMAX"}  # of every int8 file


def classifier(middle: Callable[[keras.KerasTensor], keras.KerasTensor]) -> keras.Model:
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    x = middle(keras.layers.Conv2D(8, 3, strides=2)(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return seeded(keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x)))


def swish(x: keras.KerasTensor) -> keras.KerasTensor:
    x = keras.layers.Activation("hard_swish")(x)
    x = keras.layers.DepthwiseConv2D(3, activation="hard_silu")(x)
    return keras.layers.Activation(keras.activations.hard_swish)(x)


def shared_swish(x: keras.KerasTensor) -> keras.KerasTensor:
    layer = keras.layers.Activation("hard_swish")
    return layer(keras.layers.Conv2D(8, 3)(layer(x)))


def nested(x: keras.KerasTensor) -> keras.KerasTensor:
    inputs = keras.Input(x.shape[1:])
    y = keras.layers.Activation("hard_swish")(inputs)
    return keras.Model(inputs, keras.layers.Conv2D(8, 1)(y))(x)


def twice_used(rectifier: keras.layers.Layer) -> Callable[[keras.KerasTensor], keras.KerasTensor]:
    """As in Xception: what the activation takes is added later."""

    def middle(x: keras.KerasTensor) -> keras.KerasTensor:
        x = keras.layers.BatchNormalization()(x)
        y = keras.layers.SeparableConv2D(8, 3, padding="same")(rectifier(x))
        return keras.layers.Add()([x, y])

    return middle


def concatenated(x: keras.KerasTensor) -> keras.KerasTensor:
    x = keras.layers.Concatenate()([x, keras.layers.Conv2D(8, 1)(x)])
    return keras.layers.ReLU()(x)


ALONE = {
    "hard swish": swish,
    "one hard swish twice": shared_swish,
    "inside a model": nested,
    "relu": twice_used(keras.layers.ReLU()),
    "relu by name": twice_used(keras.layers.Activation("relu")),
    "relu6": twice_used(keras.layers.ReLU(6.0)),
    "relu6 by name": twice_used(keras.layers.Activation("relu6")),
    "behind a concatenation": concatenated,
}


def operations(content: bytes) -> list[str]:
    return [node["op_name"] for node in LiteModel(content)._interpreter._get_ops_details()]


@pytest.mark.parametrize("name", ALONE)
def test_the_delegate_runs_an_int8_file_in_one_piece_with_the_answers_of_keras(name: str) -> None:
    model = classifier(ALONE[name])
    images = photos(24)
    expected = model.predict(images.astype("float32"), verbose=0)
    assert np.ptp(expected, axis=0).max() > 0.3
    file = LiteModel(convert(model, "int8", [images]))
    pieces, outside = file.delegation()
    assert pieces == 1
    assert set(outside) <= ENDS
    assert np.abs(file.predict(images) - expected).max() < 0.08


@pytest.mark.parametrize("name", ALONE)
def test_the_answers_are_the_same_in_float_and_the_model_as_it_was(name: str) -> None:
    model = classifier(ALONE[name])
    layers = model._flatten_layers()
    before = [(set(vars(layer)), getattr(layer, "activation", None)) for layer in layers]
    images = photos(8).astype("float32")
    expected = np.asarray(model(images))
    with delegable_activations(model):
        np.testing.assert_allclose(model(images), expected, atol=1e-5)
    with pytest.raises(RuntimeError, match="cut"), delegable_activations(model):
        raise RuntimeError("cut")
    layers = model._flatten_layers()
    assert [(set(vars(layer)), getattr(layer, "activation", None)) for layer in layers] == before


@pytest.mark.parametrize(
    "before",
    [
        lambda x: x,
        lambda x: keras.layers.BatchNormalization()(x),
        lambda x: keras.layers.Add()([x, keras.layers.Conv2D(8, 1)(x)]),
        lambda x: keras.layers.Multiply()([x, keras.layers.Conv2D(8, 1)(x)]),
        lambda x: keras.layers.MaxPooling2D()(x),
        lambda x: keras.layers.AveragePooling2D(2)(x),
    ],
    ids=["convolution", "normalization", "sum", "product", "largest", "mean"],
)
def test_what_the_converter_merges_stays_without_an_operation(before) -> None:
    model = classifier(lambda x: keras.layers.ReLU()(before(x)))
    plain = classifier(before)
    images = [photos(8)]
    assert operations(convert(model, "int8", images)) == operations(convert(plain, "int8", images))


def test_other_activations_and_other_forms_stay() -> None:
    def leaky(x: keras.KerasTensor) -> keras.KerasTensor:
        x = keras.layers.Activation("hard_swish")(x)
        x = keras.layers.ReLU(negative_slope=0.1)(keras.layers.MaxPooling2D(padding="same")(x))
        return keras.layers.ReLU(threshold=0.5)(x)

    model = classifier(leaky)
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.ReLU)]
    with delegable_activations(model):
        assert len(layers) == 2
        assert all("call" not in vars(layer) for layer in layers)
    assert "HARD_SWISH" in operations(convert(model))
    assert "HARD_SWISH" in operations(convert(model, "float16"))
