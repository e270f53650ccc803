"""Small networks after the literature, written as people write them in Keras.

name -> (a function that builds the model, layers whose filters must be removable,
         layer -> part of the reason why its filters must stay)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from tests.prune.nets import SIZE, classifier, conv, image, shuffled

__all__ = ["ARCHITECTURES"]

Tensor = Any  # a keras.KerasTensor


def _inception() -> keras.Model:
    """Szegedy et al. 2015: branches of several kernels and a pooled one, joined; two heads."""
    inputs = image()
    x = conv(inputs, 6, "stem")
    branches = [
        conv(x, 4, "one"),
        layers.Conv2D(5, 5, padding="same", name="five")(conv(x, 3, "reduce")),
        layers.Conv2D(3, 1, name="pooled")(layers.MaxPooling2D(3, 1, padding="same")(x)),
    ]
    x = layers.Concatenate()(branches)
    early = layers.Dense(4, name="early")(layers.GlobalAveragePooling2D()(x))
    late = layers.Dense(4, name="late")(layers.GlobalMaxPooling2D()(conv(x, 6, "last")))
    return keras.Model(inputs, [early, late])


def _cbam() -> keras.Model:
    """Woo et al. 2018: a shared network for two pooled vectors; a mean over the channels."""
    inputs = image()
    x = conv(inputs, 8, "stem")
    shared = keras.Sequential(
        [keras.Input((8,)), layers.Dense(4, "relu", name="down"), layers.Dense(8, name="up")]
    )
    pooled = [ops.mean(x, (1, 2)), ops.max(x, axis=(1, 2))]
    gate = ops.sigmoid(ops.add(*map(shared, pooled)))
    x = conv(x * ops.reshape(gate, (-1, 1, 1, 8)), 6, "middle")
    both = ops.concatenate([ops.mean(x, -1, keepdims=True), ops.max(x, -1, keepdims=True)], -1)
    place = layers.Conv2D(1, 7, padding="same", activation="sigmoid", name="place")(both)
    return classifier(inputs, conv(x * place, 5, "last"))


def _eca() -> keras.Model:
    """Wang et al. 2020: a convolution along the channels mixes neighbors."""
    inputs = image()
    x = conv(inputs, 8, "stem")
    gate = layers.Reshape((8, 1), name="sequence")(layers.GlobalAveragePooling2D()(x))
    gate = layers.Conv1D(1, 3, padding="same", activation="sigmoid", name="along")(gate)
    return classifier(inputs, conv(x * layers.Reshape((1, 1, 8))(gate), 5, "last"))


def _super_resolution() -> keras.Model:
    """Shi et al. 2016: a pixel shuffle, as reshapes and a permutation."""
    inputs = image()
    x = layers.Conv2D(5 * 4, 3, padding="same", name="fine")(conv(inputs, 6, "stem"))
    x = layers.Reshape((SIZE, SIZE, 2, 2, 5))(x)
    x = layers.Reshape((2 * SIZE, 2 * SIZE, 5))(layers.Permute((1, 3, 2, 4, 5))(x))
    return keras.Model(inputs, conv(conv(x, 6, "last"), 3, "larger"))


def _siamese() -> keras.Model:
    """Two photos through one encoder; the distance of their embeddings."""
    pixels = image()
    x = layers.GlobalAveragePooling2D()(conv(conv(pixels, 5, "first"), 6, "second"))
    encoder = keras.Model(pixels, layers.Dense(7, name="embedding")(x))
    both = keras.Input((2, SIZE, SIZE, 3), name="image")
    left, right = (encoder(both[:, side]) for side in range(2))
    return classifier(both, layers.Dense(5, "relu", name="head")(ops.abs(left - right)))


def _u_net() -> keras.Model:
    """Ronneberger et al. 2015: skips joined with what comes up, transposed or enlarged."""
    inputs = image()
    skips, x = [], inputs
    for depth in range(2):
        x = conv(x, 4 + depth, f"down_{depth}")
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = conv(x, 7, "bottom")
    x = layers.Conv2DTranspose(5, 2, 2, name="up_1")(x)
    x = conv(layers.Concatenate()([skips[1], x]), 5, "joined_1")
    x = layers.UpSampling2D(interpolation="bilinear", name="up_0")(x)
    x = conv(layers.Concatenate()([skips[0], x]), 4, "joined_0")
    return keras.Model(inputs, layers.Conv2D(2, 1, activation="softmax", name="mask")(x))


def _res_next() -> keras.Model:
    """Xie et al. 2017: grouped convolutions, and channels shuffled as in ShuffleNetV1."""
    inputs = image()
    x = conv(inputs, 8, "stem")
    y = conv(shuffled(conv(x, 12, "in", groups=4), 4), 12, "grouped", groups=2)
    return classifier(inputs, layers.Add()([x, conv(y, 8, "out")]))


def _conv_next() -> keras.Model:
    """Liu et al. 2022: a norm over the channels, a wide dense layer, a scale per channel."""
    inputs = image()
    x = layers.Conv2D(8, 2, 2, name="patches")(inputs)
    y = layers.DepthwiseConv2D(7, padding="same", name="depthwise")(x)
    y = layers.Dense(12, "gelu", name="wide")(layers.LayerNormalization(name="norm")(y))
    x = layers.Add()([x, layers.Dense(8, name="narrow")(y)])
    return classifier(inputs, conv(x, 5, "last"))


def _ghost() -> keras.Model:
    """Han et al. 2020: half of the features made cheaply from the others, some cut off."""
    inputs = image()
    x = conv(inputs, 6, "stem")
    primary = layers.Conv2D(5, 1, activation="relu", name="primary")(x)
    cheap = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="cheap")(primary)
    x = layers.Concatenate()([primary, cheap])[:, :, :, :9]
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(9, 1, activation="hard_sigmoid", name="gate")(gate)
    return classifier(inputs, conv(layers.Multiply()([x, gate]), 5, "last"))


def _c2f() -> keras.Model:
    """Jocher et al. 2023 (YOLOv8): two bottlenecks in a row, all partial results joined; SPPF."""
    inputs = image()
    parts = list(ops.split(conv(inputs, 8, "stem"), 2, axis=-1))
    for number in range(2):
        inside = conv(conv(parts[-1], 3, f"{number}_1"), 4, f"{number}_2")
        parts.append(layers.Add()([parts[-1], inside]))
    x = conv(layers.Concatenate()(parts), 6, "joined")
    pools = [x]
    for _ in range(2):
        pools.append(layers.MaxPooling2D(3, 1, padding="same")(pools[-1]))
    x = conv(layers.Concatenate()(pools), 5, "last")
    boxes = layers.Reshape((SIZE * SIZE, 4), name="boxes")(layers.Conv2D(4, 1, name="box")(x))
    return keras.Model(inputs, boxes)


def _mobile_vit() -> keras.Model:
    """Mehta and Rastegari 2022: a separable attention, with a softmax over the positions."""
    inputs = image()
    x = conv(inputs, 6, "local")
    tokens = layers.Reshape((SIZE * SIZE, 6))(x)
    scores = layers.Dense(1, name="scores")(tokens)
    key = layers.Dense(5, name="key")(tokens)
    value = layers.Dense(5, "relu", name="value")(tokens)
    context = ops.sum(key * ops.softmax(scores, axis=1), axis=1, keepdims=True)
    tokens = layers.Dense(6, name="back")(value * context)
    x = layers.Add()([x, layers.Reshape((SIZE, SIZE, 6))(tokens)])
    return classifier(inputs, conv(x, 5, "last"))


def _transformer() -> keras.Model:
    """Dosovitskiy et al. 2021: attention keeps its channels, the dense layers between do not."""
    inputs = image()
    tokens = layers.Reshape((16, 6))(layers.Conv2D(6, 2, 2, name="patches")(inputs))
    attended = layers.MultiHeadAttention(2, 4, name="attention")(tokens, tokens)
    tokens = layers.LayerNormalization(name="norm")(layers.Add()([tokens, attended]))
    mixed = layers.Dense(9, "gelu", name="mixed")(tokens)
    tokens = layers.Add()([tokens, layers.Dense(6, name="back")(mixed)])
    return classifier(inputs, layers.GlobalAveragePooling1D()(tokens))


def _mixer() -> keras.Model:
    """Tolstikhin et al. 2021: dense layers across the positions, between two permutations."""
    inputs = image()
    tokens = layers.Reshape((16, 6))(layers.Conv2D(6, 2, 2, name="patches")(inputs))
    across = layers.Permute((2, 1), name="across")(tokens)
    across = layers.Dense(16, name="positions")(layers.Dense(7, "gelu", name="hidden")(across))
    tokens = layers.Add()([tokens, layers.Permute((2, 1))(across)])
    return classifier(inputs, layers.GlobalAveragePooling1D()(tokens))


def _sequence() -> keras.Model:
    """Rows of a photo (or of text) read in both directions, as in CRNN (Shi et al. 2017)."""
    inputs = image()
    x = layers.MaxPooling2D((2, 1))(conv(inputs, 6, "first"))
    columns = layers.Reshape((SIZE, 4 * 5))(layers.Permute((2, 1, 3))(conv(x, 5, "second")))
    x = layers.Dense(7, "relu", name="dense")(columns)
    x = layers.Bidirectional(layers.GRU(4, return_sequences=True), name="both")(x)
    x = layers.Dropout(0.1, name="between_dropout")(layers.Dense(6, name="between")(x))
    x, state = layers.GRU(4, return_sequences=True, return_state=True, name="gru")(x)
    x = layers.SimpleRNN(3, name="simple")(x, initial_state=layers.Dense(3, name="start")(state))
    return classifier(inputs, x)


def _video() -> keras.Model:
    """A network in `TimeDistributed` with a nested one, one layer alone, and ConvLSTM."""
    pixels = image()
    block = keras.Sequential([keras.Input((SIZE, SIZE, 5)), layers.Conv2D(6, 3, 2, name="inside")])
    frames = keras.Model(pixels, block(conv(pixels, 5, "first")), name="frames")
    inputs = keras.Input((3, SIZE, SIZE, 3), name="image")
    x = layers.TimeDistributed(frames, name="each")(inputs)
    x = layers.TimeDistributed(layers.BatchNormalization(name="norm"), name="normalized")(x)
    x = layers.ConvLSTM2D(4, 3, return_sequences=True, name="moving")(x)
    x = layers.TimeDistributed(layers.Flatten(name="flatten"), name="flat")(x)
    x = layers.TimeDistributed(layers.Dense(6, "relu", name="dense"), name="steps")(x)
    return classifier(inputs, layers.LSTM(4, name="lstm")(x))


def _low_rank() -> keras.Model:
    """A classifier tuned by LoRA."""
    inputs = image()
    x = layers.GlobalAveragePooling2D()(conv(conv(inputs, 5, "first"), 6, "second"))
    dense = layers.Dense(7, "relu", name="tuned")
    x = dense(x)
    dense.enable_lora(2)
    return classifier(inputs, layers.Dense(5, name="hidden")(x))


def _normalized_weights() -> keras.Model:
    """Miyato et al. 2018: a wrapper divides a kernel by its norm, which all filters share."""
    inputs = image()
    x = conv(inputs, 6, "first")
    x = layers.SpectralNormalization(layers.Conv2D(5, 3, name="inside"), name="spectral")(x)
    return classifier(inputs, conv(x, 5, "last"))


def _hourglass() -> keras.Model:
    """Raw operations: pads, slices of positions, strided rows, gathers and a sum of parts."""
    inputs = image()
    x = conv(inputs, 6, "first")
    rolled = ops.concatenate([x[:, 1:], x[:, :1]], axis=1)
    coarse = ops.repeat(conv(ops.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])[:, ::2], 6, "half"), 2, 1)
    x = rolled + coarse[:, :SIZE, :SIZE]
    return classifier(inputs, conv(x, 5, "last"))


Architecture = tuple[Callable[[], keras.Model], set[str], dict[str, str]]
ARCHITECTURES: dict[str, Architecture] = {
    "inception": (_inception, {"stem", "one", "five", "reduce", "pooled", "last"}, {}),
    "CBAM": (_cbam, {"stem", "down", "up", "last"}, {"middle": "over the channels"}),
    "ECA": (_eca, {"last"}, {"stem": "over several axes"}),
    "super resolution": (_super_resolution, {"stem", "fine", "last"}, {"larger": "larger_relu"}),
    "siamese": (_siamese, {"first", "second", "embedding", "head"}, {}),
    "U-Net": (_u_net, {"down_0", "down_1", "bottom", "up_1", "joined_0", "joined_1"}, {}),
    "ResNeXt": (_res_next, {"stem", "in", "grouped", "out"}, {}),
    "ConvNeXt": (_conv_next, {"wide", "last"}, {"patches": "normalizes over the channels"}),
    "GhostNet": (_ghost, {"stem", "primary", "gate", "last"}, {}),
    "C2f": (_c2f, {"stem", "0_1", "0_2", "1_1", "1_2", "joined", "last"}, {}),
    "MobileViT": (_mobile_vit, {"local", "key", "value", "back", "last"}, {}),
    "transformer": (_transformer, {"mixed"}, {"patches": "no rule says what layers.Multi"}),
    "mixer": (_mixer, {"hidden"}, {"patches": "another axis than the last"}),
    "sequence": (
        _sequence,
        {"first", "second", "dense", "between"},
        {"gru": "feed back", "start": "feed back"},
    ),
    "video": (_video, {"first", "inside", "dense"}, {"moving": "feed back", "lstm": "feed back"}),
    "LoRA": (_low_rank, {"first", "hidden"}, {"tuned": "merge them", "second": "merge them"}),
    "spectral norm": (
        _normalized_weights,
        {"last"},
        {"first": "what layers.Spectral"},
    ),
    "raw operations": (_hourglass, {"last"}, {"first": "no rule says what ops.Repeat"}),
}
