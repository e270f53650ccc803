"""The table of rules names layers that exist, and its activations are channelwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from kpipe.prune import kind_of, plan, remove_filters
from kpipe.prune.dependencies.channel_rules import CHANNEL_RULES
from kpipe.prune.dependencies.filter_rules import FILTER_RULES
from kpipe.prune.dependencies.layout_rules import LAYOUT_RULES
from kpipe.prune.dependencies.recurrent_rules import RECURRENT_RULES
from kpipe.prune.dependencies.rules import CHANNELWISE_ACTIVATIONS
from tests.prune import nets
from tests.prune.masking import colored, randomize, worst_difference

RULES = CHANNEL_RULES | FILTER_RULES | LAYOUT_RULES | RECURRENT_RULES


@pytest.mark.parametrize("kind", sorted(kind for kind in RULES if kind.startswith("layers.")))
def test_layer_kinds_are_keras_layers(kind: str) -> None:
    assert kind_of(getattr(keras.layers, kind.removeprefix("layers."))) == kind


def test_operation_kinds_are_what_keras_operations_are() -> None:
    x = nets.image()
    made = [
        x + x,
        x - x,
        x * 2,
        x / 2,
        abs(x),
        -x,
        keras.ops.maximum(x, 0),
        keras.ops.minimum(x, 0),
        keras.ops.reshape(x, (-1, 3)),
        keras.ops.concatenate([x, x]),
        keras.ops.mean(x, 1),
        keras.ops.sum(x, 1),
        keras.ops.max(x, 1),
        keras.ops.min(x, 1),
        keras.ops.sqrt(x),
        keras.ops.square(x),
        keras.ops.exp(x),
        keras.ops.clip(x, 0, 1),
        keras.ops.cast(x, "float16"),
        keras.ops.divide(x, 2),
        keras.ops.max_pool(x, 2),
        keras.ops.average_pool(x, 2),
        keras.ops.softmax(x),
        keras.ops.pad(x, 1),
        keras.ops.expand_dims(x, 1),
        keras.ops.squeeze(keras.ops.expand_dims(x, 1), 1),
        keras.ops.image.resize(x, (2, 2)),
        x**2,
        x[:, 0],
        keras.ops.log_softmax(x),
        keras.ops.split(x, 3, -1)[0],
        keras.ops.stack([x, x], 1),
        keras.ops.transpose(x),
        keras.ops.swapaxes(x, 1, 2),
        keras.ops.moveaxis(x, 1, 2),
    ]
    names = "relu relu6 leaky_relu elu selu celu gelu silu hard_silu sigmoid hard_sigmoid"
    names += " log_sigmoid softplus softsign squareplus tanh hard_tanh"
    made += [getattr(keras.ops, name)(x) for name in names.split()]
    kinds = {kind_of(tensor._keras_history.operation) for tensor in made}
    assert {kind for kind in RULES if kind.startswith("ops.")} == kinds


@pytest.mark.parametrize("name", sorted(CHANNELWISE_ACTIVATIONS))
def test_a_channelwise_activation_treats_each_channel_alone(name: str) -> None:
    activation = keras.activations.get(name)
    image = np.random.default_rng(0).normal(0, 3, (1, 4, 4, 3)).astype("float32")
    alone = image * np.array([1, 0, 0], "float32")
    whole, apart = (np.asarray(activation(keras.ops.convert_to_tensor(x))) for x in (image, alone))
    np.testing.assert_array_equal(whole[..., 0], apart[..., 0])


def _alone(layer: layers.Layer) -> keras.Model:
    """A convolution of 8 filters, the layer, and a classifier."""
    x = layers.Conv2D(8, 3, name="first")(nets.image())
    return nets.classifier(x._keras_history.operation.input, layer(x))


@pytest.mark.parametrize("scale", [list(range(8)), np.arange(8.0)])
def test_a_rescaling_by_channel_keeps_its_channels(scale: Any) -> None:
    protected = plan(_alone(layers.Rescaling(scale, name="by_channel")), {}).protected
    assert "per channel" in protected["first"]


@pytest.mark.parametrize("groups", [2, -1])
def test_a_group_normalization_without_weights_keeps_its_channels(groups: int) -> None:
    layer = layers.GroupNormalization(groups, scale=False, center=False)
    assert "without weights" in plan(_alone(layer), {}).protected["first"]


def test_a_dropout_of_whole_channels_still_trains() -> None:
    model = _alone(layers.Dropout(0.5, noise_shape=(None, 1, 1, 8), name="drop"))
    small = remove_filters(model, plan(model, {"first": [0, 1]}))
    assert small.get_layer("drop").noise_shape == (None, 1, 1, 6)
    assert small(np.ones((2, 8, 8, 3)), training=True).shape == (2, 4)


def test_a_reshape_to_a_single_number_is_planned() -> None:
    pixels = nets.image()
    x = layers.Dense(1)(layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, name="first")(pixels)))
    model = keras.Model(pixels, layers.Reshape(())(x))
    assert list(plan(model, {"first": [0]}).kept) == ["first", model.layers[2].name]


def test_a_layer_used_on_different_numbers_of_tensors_is_protected() -> None:
    pixels = keras.Input((6, 8))
    attention, x = layers.MultiHeadAttention(2, 4), layers.Dense(8, name="first")(pixels)
    once, _ = attention(x, x, return_attention_scores=True)
    model = keras.Model(pixels, layers.Dense(3)(attention(once, x, x)))
    assert "first" in plan(model, {}).protected


LEFT_LAST: dict[str, Callable[[Any], Any]] = {
    "padded": lambda x: keras.ops.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)), constant_values=-3.0),
    "another axis": lambda x: keras.ops.expand_dims(x, 1)[:, 0],
    "squeezed": lambda x: keras.ops.squeeze(keras.ops.expand_dims(x, (1, -3)), (1, -3)),
    "every other": lambda x: x[:, ::2, 1:],
    "a crop": lambda x: x[..., 1:4, 2:5, :],
    "a row": lambda x: x[:, -1],
    "resized": lambda x: keras.ops.image.resize(x, (5, 4)),
    "cubed": lambda x: x**3,
    "half of them": lambda x: x[..., :4],
    "one of them": lambda x: x[..., 4:5],
    "the last ones": lambda x: x[..., -5:],
    "overlapping parts": lambda x: keras.ops.concatenate([x[..., :6], x[:, :, :, 2:]], -1),
    "split at places": lambda x: keras.ops.concatenate(keras.ops.split(x, [2, 5], -1)[::-1], -1),
    "split in one": lambda x: keras.ops.split(x, 1, -1)[0],
    "split with an empty part": lambda x: keras.ops.split(x, [0, 3], -1)[2],
    "a new axis before": lambda x: keras.ops.sum(x[:, None, ..., :6], 1),
    "a number and a new axis": lambda x: x[:, 2, None],
    "split by rows": lambda x: keras.ops.add(*keras.ops.split(x, 2, 1)),
    "softmax of rows": lambda x: keras.ops.softmax(x, axis=1),
    "log-softmax of rows": lambda x: keras.ops.log_softmax(x, axis=-2),
    "softmax of photos": lambda x: keras.ops.softmax(x, axis=0),
    "softmax layer": layers.Softmax(axis=(1, -2)),
    "a norm of positions": layers.LayerNormalization(axis=(1, 2)),
    "there and back": lambda x: keras.ops.transpose(keras.ops.moveaxis(x, -1, 1), (0, 2, 3, 1)),
    "rows and columns": layers.Permute((2, 1, 3)),
    "axes there and back": lambda x: keras.ops.swapaxes(keras.ops.moveaxis(x, -1, 1), 1, -1),
    "stacked": lambda x: keras.ops.stack([x, 2 * x], axis=2)[:, :, 1],
}
MOVED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "channels padded": (lambda x: keras.ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, 1))), "pads"),
    "all padded": (lambda x: keras.ops.pad(x, 1), "pads"),
    "a last axis": (lambda x: keras.ops.expand_dims(x, -1)[..., 0], "to another axis"),
    "a new last axis": (lambda x: x[..., None], "to another axis"),
    "every other": (lambda x: x[..., ::2], "every other channel"),
    "in another order": (lambda x: x[..., ::-1], "another order"),
    "without its axis": (lambda x: x[..., 3], "without its axis"),
    "moved and pooled": (
        lambda x: layers.GlobalAveragePooling2D()(layers.Permute((3, 1, 2))(x)),
        "another axis than the last",
    ),
    "as positions": (lambda x: layers.Reshape((6, 6 * 8, 1))(x), "over several axes"),
    "moved and split": (
        lambda x: layers.Reshape((2, 4, 36))(layers.Reshape((8, 36))(layers.Permute((3, 1, 2))(x))),
        "over several axes",
    ),
    "softmax of all": (layers.Softmax(axis=(1, -1)), "Softmax mixes the channels"),
    "a norm of all": (layers.LayerNormalization(axis=(2, 3)), "LayerNormalization normalizes over"),
    "a new axis": (lambda x: x[:, None, ..., 0], "without its axis"),
    "any axis of one": (lambda x: keras.ops.squeeze(x), "without an axis"),
    "a divisor": (lambda x: (1 + x**2) ** -0.5, "divisor"),
    "the largest of all": (lambda x: x + keras.ops.max(x)[()], "over the channels"),
    "filled by channel": (
        lambda x: keras.ops.image.resize(
            x, (9, 4), pad_to_aspect_ratio=True, fill_value=[float(n) for n in range(8)]
        ),
        "per channel",
    ),
    "an exponent": (lambda x: 2.0**x, "exponent"),
}


@pytest.mark.parametrize("change", LEFT_LAST.values(), ids=LEFT_LAST)
def test_raw_operations_that_leave_channels_last_are_cut_exactly(change: Any) -> None:
    pixels = nets.image()
    x = change(layers.Conv2D(8, 3, name="first")(pixels))
    x = layers.Conv2D(6, 3, padding="same")(x) if len(x.shape) == 4 else layers.Dense(6)(x)
    model = randomize(nets.classifier(pixels, x))
    made = plan(model, {"first": [0, 3, 7]})
    small = remove_filters(model, made)
    assert small.get_layer("first").filters == 5
    np.testing.assert_allclose(
        remove_filters(model, plan(model, {}))(np.ones((1, 8, 8, 3))),
        model(np.ones((1, 8, 8, 3))),
        rtol=1e-5,
    )
    assert worst_difference(model, small, made.kept, colored(2, nets.SIZE)) < 1e-5


@pytest.mark.parametrize(("change", "reason"), MOVED.values(), ids=MOVED)
def test_raw_operations_that_move_channels_keep_them(change: Any, reason: str) -> None:
    pixels = nets.image()
    x = change(layers.Conv2D(8, 3, name="first")(pixels))
    model = keras.Model(pixels, layers.Dense(3)(layers.Flatten()(x)))
    assert reason in plan(model, {}).protected["first"]


def test_a_constant_beside_the_channels_keeps_them() -> None:
    pixels = keras.Input(batch_shape=(2, 8, 8, 3))
    x = layers.Conv2D(8, 3, name="first", activation=layers.Softmax())(pixels)
    x = keras.ops.concatenate([x, np.ones((2, 6, 6, 1), "float32")], -1)
    protected = plan(nets.classifier(pixels, x), {}).protected
    assert protected["first"] == (
        "the activation 'Softmax' is not known to treat each channel alone"
    )
    joined = x._keras_history.operation.name
    assert protected[joined] == "it joins a constant to the channels"


@pytest.mark.parametrize(
    "change",
    [
        lambda x: keras.ops.clip(x, 0.0, [1.0, 2.0, 3.0, 4.0]),
        layers.Resizing(6, 10, pad_to_aspect_ratio=True, fill_value=[1.0, 2.0, 3.0, 4.0]),
    ],
)
def test_a_setting_of_each_channel_keeps_them(change: Any) -> None:
    image = nets.image()
    x = change(layers.Conv2D(4, 1, name="conv")(image))
    made = plan(keras.Model(image, layers.Conv2D(2, 1)(x)), {})
    assert "constant per channel" in made.protected["conv"]


def test_a_mask_that_is_computed_keeps_its_channels() -> None:
    tokens = keras.Input((6, 4))
    mask = layers.Dense(6, "sigmoid", name="mask")(layers.Flatten()(tokens))
    x = layers.GlobalAveragePooling1D()(layers.Dense(5, name="dense")(tokens), mask=mask)
    made = plan(keras.Model(tokens, layers.Dense(2)(x)), {"dense": [0]})
    assert "beside the channels" in made.protected["mask"]


@keras.saving.register_keras_serializable("kpipe_tests")
class ReLU(layers.Layer):
    """A custom layer with the name of a Keras layer."""

    def call(self, x: Any) -> Any:
        return keras.ops.relu(x) * keras.ops.mean(x, -1, keepdims=True)


def test_a_custom_activation_layer_named_like_one_of_keras_protects_the_channels() -> None:
    image = nets.image()
    x = layers.Conv2D(6, 1, activation=ReLU(), name="own")(image)
    x = layers.Conv2D(6, 1, activation=layers.ReLU(), name="keras")(x)
    protected = plan(keras.Model(image, layers.Conv2D(2, 1)(x)), {}).protected
    assert "own" in protected and "keras" not in protected


@pytest.mark.parametrize("axes", [[0], [1, 3], [3]])
def test_a_prelu_that_shares_the_channels_is_cut_exactly(axes: list[int]) -> None:
    image = nets.image()
    x = layers.PReLU(shared_axes=axes)(layers.Conv2D(4, 1, name="conv")(image))
    model = randomize(keras.Model(image, layers.Conv2D(2, 1)(x)))
    made = plan(model, {"conv": [1]})
    small = remove_filters(model, made)
    assert worst_difference(model, small, made.kept, colored(2, nets.SIZE)) < 1e-4
