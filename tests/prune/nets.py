"""Small models, one for each way in which channels can be joined, laid out or protected.

name -> (a function that builds the model, layers whose filters must be removable)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers

__all__ = ["NETS", "classifier", "conv", "image", "lite", "residual", "shuffled"]

Tensor = Any  # a keras.KerasTensor
SIZE = 8


def image(channels: int = 3) -> Tensor:
    return keras.Input((SIZE, SIZE, channels), name="image")


def classifier(inputs: Tensor, features: Tensor, name: str = "net") -> keras.Model:
    x = (
        layers.GlobalAveragePooling2D(name="pool")(features)
        if len(features.shape) == 4
        else features
    )
    x = layers.Dropout(0.2, name="dropout")(x)
    x = layers.Dense(4, name="logits")(x)
    return keras.Model(inputs, layers.Activation("softmax", name="predictions")(x), name=name)


def conv(x: Tensor, filters: int, name: str, strides: int = 1, **kwargs: object) -> Tensor:
    x = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False, name=name, **kwargs)(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x)


def _mobile_block(x: Tensor, filters: int, stride: int, name: str) -> Tensor:
    """An inverted bottleneck with explicit symmetric padding, as in EfficientNet-Lite0."""
    y = layers.Conv2D(x.shape[-1] * 3, 1, use_bias=False, name=f"{name}_expand")(x)
    y = layers.BatchNormalization(name=f"{name}_expand_bn")(y)
    y = layers.ReLU(6.0, name=f"{name}_expand_relu")(y)
    y = layers.ZeroPadding2D(1, name=f"{name}_pad")(y)
    y = layers.DepthwiseConv2D(3, stride, padding="valid", use_bias=False, name=f"{name}_dw")(y)
    y = layers.BatchNormalization(name=f"{name}_dw_bn")(y)
    y = layers.ReLU(6.0, name=f"{name}_dw_relu")(y)
    y = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_project")(y)
    y = layers.BatchNormalization(name=f"{name}_project_bn")(y)
    if stride == 1 and x.shape[-1] == filters:
        y = layers.Dropout(0.1, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(y)
        y = layers.Add(name=f"{name}_add")([x, y])
    return y


def lite() -> keras.Model:
    """A small EfficientNet-Lite0: its layers, paddings and classifier."""
    inputs = image()
    x = layers.Rescaling(1 / 128, -127 / 128, name="rescale")(inputs)
    x = layers.ZeroPadding2D(1, name="stem_pad")(x)
    x = layers.Conv2D(8, 3, 2, use_bias=False, name="stem")(x)
    x = layers.BatchNormalization(name="stem_bn")(x)
    x = layers.ReLU(6.0, name="stem_relu")(x)
    x = _mobile_block(x, 16, 2, "a")
    x = _mobile_block(x, 16, 1, "b")
    x = _mobile_block(x, 16, 1, "c")
    x = conv(x, 32, "head")
    return classifier(inputs, x, "lite")


def residual() -> keras.Model:
    """Pre-activation blocks: the sum is read by normalization, and by a pooled shortcut."""
    inputs = image()
    x = layers.Conv2D(8, 3, padding="same", name="stem")(inputs)
    for block in ("a", "b"):
        y = layers.BatchNormalization(name=f"{block}_pre")(x)
        y = layers.Activation("relu", name=f"{block}_pre_relu")(y)
        y = conv(y, 6, f"{block}_1")
        y = layers.Conv2D(8, 3, padding="same", name=f"{block}_2")(y)
        x = layers.Add(name=f"{block}_add")([x, y])
    y = conv(x, 8, "c_1", strides=2)
    x = layers.Add(name="c_add")([layers.MaxPooling2D(1, 2, name="c_short")(x), y])
    return classifier(inputs, layers.BatchNormalization(name="post")(x), "residual")


def _concatenated() -> keras.Model:
    inputs = image()
    x = conv(inputs, 5, "first")
    for step in ("a", "b"):  # chained, as in DenseNet
        x = layers.Concatenate(name=f"{step}_cat")([x, conv(x, 4, step)])
    return classifier(inputs, conv(x, 6, "last"))


def _flattened() -> keras.Model:
    inputs = image()
    x = layers.MaxPooling2D(4)(conv(inputs, 6, "first"))
    x = layers.Dense(7, "gelu", name="hidden")(layers.Flatten(name="flatten")(x))
    return classifier(inputs, x)


def _squeezed() -> keras.Model:
    inputs = image()
    x = conv(inputs, 6, "first")
    s = layers.GlobalAveragePooling2D()(x)
    s = layers.Reshape((1, 1, 6), name="squeeze")(s)
    s = layers.Conv2D(3, 1, activation="silu", name="reduce")(s)
    s = layers.Conv2D(6, 1, activation="sigmoid", name="expand")(s)
    return classifier(inputs, conv(layers.Multiply(name="scale")([x, s]), 5, "last"))


def _raw_operations() -> keras.Model:
    inputs = image()
    x = conv(inputs, 6, "first")
    y = keras.ops.relu6(x + 3.0) * (1 / 6)
    x = x * y + conv(x, 6, "second")
    x = keras.ops.concatenate([x / 2.0, keras.ops.maximum(x, y)], axis=-1)
    x = keras.ops.mean(conv(x, 5, "third"), axis=(1, 2), keepdims=True)
    x = layers.Dense(6, name="hidden")(keras.ops.reshape(x, (-1, 5)))
    return classifier(inputs, x)


def _separable() -> keras.Model:
    inputs = image()
    x = layers.SeparableConv2D(6, 3, depth_multiplier=2, name="first")(inputs)
    x = layers.SeparableConv2D(5, 3, depth_multiplier=2, name="second")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="depthwise")(x)
    return classifier(inputs, layers.UpSampling2D(name="up")(x))


def _transposed() -> keras.Model:
    inputs = image()
    x = layers.Conv2DTranspose(6, 3, 2, activation="relu", name="first")(inputs)
    x = layers.Conv2DTranspose(5, 3, name="second")(layers.AveragePooling2D(2)(x))
    return classifier(inputs, layers.Cropping2D(1)(x))


def _grouped() -> keras.Model:
    inputs = image()
    x = conv(inputs, 8, "first")
    x = conv(x, 12, "grouped", groups=4)
    x = conv(x, 24, "one_each", groups=12)
    return classifier(inputs, conv(x, 5, "last"))


def _activations() -> keras.Model:
    inputs = image()
    x = layers.PReLU(shared_axes=[1, 2], name="shared")(layers.Conv2D(6, 3, name="first")(inputs))
    x = layers.PReLU(name="whole")(layers.Conv2D(6, 3, name="second")(x))
    x = layers.ELU()(layers.LeakyReLU()(x))
    x = layers.SpatialDropout2D(0.1)(layers.GaussianNoise(0.1)(x))
    return classifier(inputs, layers.Activation("hard_silu")(conv(x, 5, "last")))


def _shared_layer() -> keras.Model:
    inputs = image()
    x, twice = conv(inputs, 6, "first"), layers.Conv2D(6, 3, padding="same", name="twice")
    relu = layers.ReLU(name="relu")
    x = relu(twice(x))
    return classifier(inputs, layers.Average(name="mean")([x, relu(twice(x))]))


def _nested() -> keras.Model:
    inner_input = keras.Input((SIZE, SIZE, 5), name="inner_input")
    inner = keras.Model(inner_input, conv(inner_input, 6, "inside"), name="inner")
    tail = keras.Sequential([keras.Input((SIZE, SIZE, 6)), layers.Conv2D(7, 3, name="tail_conv")])
    inputs = image()
    return classifier(inputs, tail(inner(conv(inputs, 5, "first"), training=False)))


def _layer_normalized() -> keras.Model:
    inputs = image()
    x = layers.LayerNormalization(name="norm")(conv(inputs, 6, "first"))
    x = layers.Dense(9, "gelu", name="wide")(x)
    return classifier(inputs, layers.Dense(6, name="narrow")(x))


def _group_normalized() -> keras.Model:
    inputs = image()
    x = layers.GroupNormalization(4, name="pairs")(conv(inputs, 8, "first"))
    x = layers.GroupNormalization(-1, name="each")(conv(x, 6, "second"))
    x = layers.GroupNormalization(1, name="all")(conv(x, 6, "third"))
    return classifier(inputs, conv(x, 5, "last"))


def _mixing() -> keras.Model:
    inputs = image()
    x = layers.Conv2D(6, 1, activation="softmax", name="attention")(conv(inputs, 5, "first"))
    x = layers.Permute((2, 1, 3), name="permute")(x)
    return classifier(inputs, conv(x, 5, "last"))


def _broadcast() -> keras.Model:
    inputs = image()
    x = conv(inputs, 6, "first")
    mask = layers.Conv2D(1, 3, padding="same", activation="sigmoid", name="mask")(x)
    return classifier(inputs, conv(layers.Multiply(name="masked")([x, mask]), 5, "last"))


def _split_reshape() -> keras.Model:
    inputs = image()
    x = layers.Reshape((SIZE, SIZE * 2, 3), name="split")(conv(inputs, 6, "first"))
    x = layers.Reshape((SIZE, SIZE * 2 * 5), name="merged")(conv(x, 5, "second"))
    x = layers.Conv1D(6, 3, name="one_dimension")(x)
    return classifier(inputs, layers.GlobalMaxPooling1D()(x))


def shuffled(x: Tensor, groups: int) -> Tensor:
    _, height, width, channels = x.shape
    x = layers.Reshape((height, width, groups, channels // groups))(x)
    return layers.Reshape((height, width, channels))(layers.Permute((1, 2, 4, 3))(x))


def _shuffle_net() -> keras.Model:
    """Two units of ShuffleNetV2: channels split, one half convolved, both shuffled."""
    inputs = image()
    x = conv(inputs, 8, "stem")
    for unit in ("a", "b"):
        left, right = keras.ops.split(x, 2, axis=-1)
        right = layers.Conv2D(6, 1, name=f"{unit}_1")(right)
        right = layers.DepthwiseConv2D(3, padding="same", name=f"{unit}_2")(right)
        right = layers.Conv2D(4, 1, activation="relu", name=f"{unit}_3")(right)
        x = shuffled(layers.Concatenate()([left, right]), 2)
    return classifier(inputs, conv(x, 5, "last"))


def _cross_stage() -> keras.Model:
    """A cross-stage partial block (CSP), and one as in C2f, which joins all partial results."""
    inputs = image()
    x = conv(inputs, 8, "stem")
    part = conv(x[..., 3:], 5, "part")
    x = conv(layers.Concatenate()([x[..., :3], part]), 9, "joined")
    first, second = keras.ops.split(x, [4], -1)
    third = layers.Add()([second, conv(second, 5, "third")])
    return classifier(inputs, conv(layers.Concatenate()([first, second, third]), 5, "last"))


def _coordinates() -> keras.Model:
    """Coordinate attention: rows and columns pooled, convolved together, and parted again."""
    inputs = image()
    x = conv(inputs, 6, "first")
    rows = keras.ops.mean(x, axis=2, keepdims=True)
    columns = keras.ops.transpose(keras.ops.mean(x, axis=1, keepdims=True), (0, 2, 1, 3))
    both = layers.Conv2D(4, 1, activation="relu", name="both")(
        layers.Concatenate(axis=1)([rows, columns])
    )
    rows, columns = keras.ops.split(both, 2, axis=1)
    columns = layers.Permute((2, 1, 3))(columns)
    rows = layers.Conv2D(6, 1, activation="sigmoid", name="rows")(rows)
    columns = layers.Conv2D(6, 1, activation="sigmoid", name="columns")(columns)
    return classifier(inputs, conv(x * rows * columns, 5, "last"))


def _frames() -> keras.Model:
    """An encoder of video frames, whose features a recurrent layer reads."""
    inputs, pixels = keras.Input((3, SIZE, SIZE, 3), name="image"), image()
    encoder = conv(conv(pixels, 5, "first"), 6, "second", strides=2)
    encoder = keras.Model(pixels, layers.GlobalAveragePooling2D()(encoder), name="encoder")
    x = layers.TimeDistributed(encoder, name="frames")(inputs)
    x = layers.TimeDistributed(layers.Dense(7, "relu", name="dense"), name="steps")(x)
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True), name="lstm")(x)
    x = layers.Conv1D(5, 2, name="after")(x)
    return classifier(inputs, layers.GRU(4, name="gru")(x))


def _selective() -> keras.Model:
    """Selective kernels: a softmax over two branches, for each channel."""
    inputs = image()
    branches = [conv(inputs, 6, name) for name in ("narrow", "wide")]
    pooled = [keras.ops.mean(x, (1, 2), keepdims=True) for x in branches]
    shares = keras.ops.softmax(keras.ops.concatenate(pooled, axis=1), axis=1)
    x = branches[0] * shares[:, 0:1] + branches[1] * shares[:, 1:2]
    stacked = keras.ops.stack([x, branches[0]], axis=1)
    x = keras.ops.sum(layers.LayerNormalization(axis=2)(stacked), axis=1)
    return classifier(inputs, conv(x, 5, "last"))


def _decoder() -> keras.Model:
    """A dense layer whose units become the channels of an image."""
    inputs = keras.Input((10,), name="image")
    x = layers.Dense(4 * 4 * 6, "relu", name="dense")(layers.Dense(7, name="code")(inputs))
    x = layers.Conv2DTranspose(5, 3, 2, name="up")(layers.Reshape((4, 4, 6))(x))
    x = keras.ops.swapaxes(keras.ops.moveaxis(x, 3, 1), 1, -1)
    return classifier(inputs, conv(x, 5, "last"))


NETS: dict[str, tuple[Callable[[], keras.Model], set[str]]] = {
    "lite": (lite, {"stem", "a_expand", "a_project", "c_project", "head"}),
    "residual": (residual, {"stem", "a_1", "a_2", "b_2", "c_1"}),
    "concatenated": (_concatenated, {"first", "a", "b", "last"}),
    "flattened": (_flattened, {"first", "hidden"}),
    "squeezed": (_squeezed, {"first", "reduce", "expand", "last"}),
    "raw operations": (_raw_operations, {"first", "second", "third", "hidden"}),
    "separable": (_separable, {"first", "second"}),
    "transposed": (_transposed, {"first", "second"}),
    "grouped": (_grouped, {"first", "grouped", "last"}),
    "activations": (_activations, {"first", "second", "last"}),
    "shared layer": (_shared_layer, {"first", "twice"}),
    "nested": (_nested, {"first", "inside", "tail_conv"}),
    "layer normalized": (_layer_normalized, {"wide", "narrow"}),
    "group normalized": (_group_normalized, {"first", "second", "last"}),
    "mixing": (_mixing, {"first", "last"}),
    "broadcast": (_broadcast, {"first", "last"}),
    "split reshape": (_split_reshape, {"first", "second", "one_dimension"}),
    "shuffle net": (_shuffle_net, {"stem", "a_1", "a_3", "b_1", "b_3", "last"}),
    "cross stage": (_cross_stage, {"stem", "part", "joined", "third", "last"}),
    "coordinates": (_coordinates, {"first", "both", "rows", "columns", "last"}),
    "frames": (_frames, {"first", "second", "dense", "after"}),
    "selective": (_selective, {"narrow", "wide", "last"}),
    "decoder": (_decoder, {"code", "dense", "up", "last"}),
}
