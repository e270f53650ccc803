from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from kpipe.lite import LiteModel, convert
from kpipe.lite.export.activations import delegable_activations
from kpipe.train import split_frozen, unfreeze
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
    pieces, undelegated_ops = file.inspect_delegation()
    assert pieces == 1
    assert set(undelegated_ops) <= ENDS
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
        lambda x: x + keras.layers.Conv2D(8, 1)(x),
        lambda x: keras.layers.Dropout(0.1)(x - keras.layers.Conv2D(8, 1)(x)),
    ],
    ids=["convolution", "normalization", "sum", "product", "largest", "mean", "raw sum", "dropout"],
)
def test_what_the_converter_merges_stays_without_an_operation(before) -> None:
    model = classifier(lambda x: keras.layers.ReLU()(before(x)))
    plain = classifier(before)
    images = [photos(8)]
    assert operations(convert(model, "int8", images)) == operations(convert(plain, "int8", images))


def residual(x: keras.KerasTensor) -> keras.KerasTensor:
    for _ in range(2):
        y = keras.layers.Conv2D(8, 3, padding="same")(keras.layers.ReLU()(x))
        x = keras.layers.ReLU()(keras.layers.Add()([x, keras.layers.BatchNormalization()(y)]))
    return x


def test_bytes_do_not_depend_on_what_else_was_built_of_the_layers(tmp_path: Path) -> None:
    model = classifier(residual)
    images = [photos(8)]
    content = convert(model, "int8", images)
    assert operations(content).count("MUL") == 2  # preprocessing, and the first relu
    unfreeze(model, 3)
    split_frozen(model)
    keras.Model(model.input, keras.layers.GlobalMaxPooling2D()(model.layers[-4].output))
    assert convert(model, "int8", images) == content
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert convert(again, "int8", images) == content


def test_a_sequential_model_may_grow_layer_by_layer() -> None:
    layers = [keras.Input((32, 32, 3)), keras.layers.Rescaling(1 / 127.5, offset=-1.0)]
    layers += [keras.layers.Conv2D(8, 3), keras.layers.MaxPooling2D(), keras.layers.ReLU()]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, activation="softmax")]
    grown = keras.Sequential()
    for layer in layers:
        grown.add(layer)
    assert "MUL" not in operations(convert(grown, "int8", [photos(8)]))[2:]


def of_another_activation(x: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.ReLU()(keras.layers.Conv2D(8, 3, activation="tanh")(x))


class Owned(keras.layers.Layer):
    """Its activation is a property, as that of a GRU."""

    @property
    def activation(self):
        return keras.activations.hard_silu

    def call(self, inputs):
        return self.activation(inputs)


class Unhashable:
    __hash__ = None

    def __call__(self, x):
        return keras.ops.relu(x)


@pytest.mark.parametrize(
    "middle",
    [
        of_another_activation,
        lambda x: Owned()(x),
        lambda x: keras.layers.Activation(Unhashable())(x),
        lambda x: keras.layers.ReLU()(inputs=keras.layers.Concatenate()([x, x])),
    ],
    ids=["of a convolution", "property", "unhashable", "by keyword"],
)
def test_unusual_layers_convert(middle) -> None:
    model = classifier(middle)
    images = photos(24)
    expected = model.predict(images.astype("float32"), verbose=0)
    file = LiteModel(convert(model, "int8", [images]))
    assert np.abs(file.predict(images) - expected).max() < 0.08


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
