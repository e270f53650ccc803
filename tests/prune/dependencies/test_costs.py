"""Multiply-accumulates of layers that multiply matrices: as TensorFlow's profiler counts them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tensorflow.python.framework.ops import get_stats_for_node_def

from kpipe.prune import (
    Rule,
    Selection,
    count_macs,
    kind_of,
    new_channels,
    plan,
    prunable_fraction,
    prune_filters,
    register_rule,
)
from kpipe.prune.dependencies.costs import COSTS, UNCOUNTED_OPERATIONS
from tests.prune import nets

PRODUCTS = ("MatMul", "BatchMatMulV2", "Conv2D", "DepthwiseConv2dNative")


def multiplied(model: keras.Model) -> int:
    """What TensorFlow's profiler counts for all products of a traced model, which is unrolled."""

    def call(*inputs: Any) -> Any:
        return model(list(inputs) if len(inputs) > 1 else inputs[0], training=False)

    shapes = [tf.TensorSpec((1, *tensor.shape[1:])) for tensor in model.inputs]
    traced = tf.function(call).get_concrete_function(*shapes)
    graph = convert_variables_to_constants_v2(traced).graph
    total = 0
    for operation in graph.get_operations():
        if operation.type in PRODUCTS:
            total += get_stats_for_node_def(graph, operation.node_def, "flops").value // 2
        elif operation.type == "Einsum":  # the profiler does not know it
            labels = operation.get_attr("equation").decode().split("->")[0].split(",")
            sizes: dict[str, int] = {}
            for text, x in zip(labels, operation.inputs, strict=True):
                named = text.replace("...", "0123"[: len(x.shape) - len(text.replace(".", ""))])
                sizes |= dict(zip(named, x.shape, strict=True))
            total += math.prod(sizes.values()) if len(labels) > 1 else 0
        else:
            assert operation.type not in ("While", "StatelessWhile", "PartitionedCall")
    return total


def frames() -> keras.Model:
    pixels = nets.image()
    x = layers.GlobalAveragePooling2D()(nets.conv(nets.conv(pixels, 5, "a", 2), 6, "b"))
    return keras.Model(pixels, x)


def again(layer: layers.Layer) -> Callable[[Any], Any]:
    return lambda x: layer(x, x)


NORMAL = np.random.default_rng(0).normal(size=(3, 6)).astype("float32")
COUNTED: dict[str, tuple[tuple[int, ...], Callable[[Any], Any]]] = {
    "convolution": ((8, 8, 4), layers.Conv2D(6, 3, 2)),
    "separable": ((8, 8, 4), layers.SeparableConv2D(5, 3, depth_multiplier=2)),
    "dense": ((5, 4), layers.Dense(7)),
    "LSTM": ((5, 4), layers.LSTM(3, unroll=True)),
    "GRU": ((5, 4), layers.GRU(3, unroll=True, return_sequences=True)),
    "simple": ((5, 4), layers.SimpleRNN(3, unroll=True)),
    "both directions": ((5, 4), layers.Bidirectional(layers.LSTM(3, unroll=True))),
    "cells": (
        (5, 4),
        layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)], unroll=True),
    ),
    "attention": ((5, 4), lambda x: layers.Attention()([x, x[:, :3]])),
    "attention with masks": (
        (5, 4),
        lambda x: layers.Attention()([x, x[:, :3]], mask=[x[..., 0] > 0, x[:, :3, 1] > 0]),
    ),
    "key beside value": (
        (5, 4),
        lambda x: layers.Attention()([x, layers.Dense(2)(x), layers.Dense(4)(x)]),
    ),
    "heads": ((5, 4), again(layers.MultiHeadAttention(2, 3, value_dim=5))),
    "heads over rows": ((3, 4, 6), again(layers.MultiHeadAttention(2, 3, attention_axes=(2,)))),
    "heads over all positions": ((3, 4, 6), again(layers.MultiHeadAttention(2, 3))),
    "groups of heads": ((5, 4), again(layers.GroupQueryAttention(3, 4, 2))),
    "einsum dense": ((5, 4), layers.EinsumDense("abc,cde->abde", (5, 2, 3))),
    "einsum dense with dots": ((2, 5, 4), layers.EinsumDense("...x,xy->...y", 7)),
    "product": ((5, 4), lambda x: ops.matmul(x, ops.transpose(x, (0, 2, 1)))),
    "product with a constant": ((6, 5), lambda x: ops.matmul(NORMAL, x)),
    "einsum": ((5, 4), lambda x: ops.einsum("bij,bkj->bik", x, x)),
    "einsum with dots": ((2, 5, 4), lambda x: ops.einsum("...ij,...kj->...ik", x, x)),
    "einsum of one": ((5, 4), lambda x: ops.einsum("bij->bji", x)),
    "dot": ((5, 4), lambda x: layers.Dot(axes=(1, 1))([x, layers.Dense(3)(x)])),
    "attention of heads": (
        (5, 2, 3),
        lambda x: ops.dot_product_attention(x, x[:, :4], x[:, :4], flash_attention=False),
    ),
    "in time": ((3, 8, 8, 3), layers.TimeDistributed(frames())),
    "in time, alone": ((3, 8, 8, 3), layers.TimeDistributed(layers.Conv2D(4, 3))),
    "recurrent in time": ((3, 5, 4), layers.TimeDistributed(layers.LSTM(3, unroll=True))),
    "wrapped": ((8, 8, 3), layers.SpectralNormalization(layers.Conv2D(4, 3))),
}


@pytest.mark.parametrize("name", COUNTED)
def test_products_are_counted_as_the_profiler_does(name: str) -> None:
    shape, layer = COUNTED[name]
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    assert count_macs(model) == multiplied(model)
    assert plan(model, {}).macs_before == multiplied(model)


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        # steps * positions * (3 * 3 kernel * channels of input and state) * 4 gates * filters
        (layers.ConvLSTM2D(2, 3), 4 * (6 * 6 * 9 * 3 + 6 * 6 * 9 * 2) * 4 * 2),
        (layers.ConvLSTM2D(2, 3, return_sequences=True), 4 * 36 * 9 * (3 + 2) * 4 * 2),
        (layers.Bidirectional(layers.ConvLSTM2D(2, 3)), 2 * 4 * 36 * 9 * (3 + 2) * 4 * 2),
    ],
)
def test_recurrent_convolutions_by_hand(layer: layers.Layer, macs: int) -> None:
    assert count_macs(keras.Sequential([keras.Input((4, 8, 8, 3)), layer])) == macs


def test_a_time_distributed_that_stays_closed_is_counted_at_each_step() -> None:
    words = keras.Input((4,))
    x = layers.Embedding(9, 5, mask_zero=True)(words)
    x = layers.TimeDistributed(layers.Dense(3))(x)
    assert count_macs(keras.Model(words, layers.LSTM(2)(x))) == 4 * 5 * 3 + 4 * (3 + 2) * 8


class Bilinear(layers.Layer):
    """Without rule: nobody knows what it does with its matrix."""

    def build(self, shape: Any) -> None:
        self.matrix = self.add_weight(shape=(shape[-1], shape[-1]), name="matrix")

    def call(self, x: Any) -> Any:
        return x @ self.matrix @ ops.transpose(self.matrix)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


class Recurrent(layers.SimpleRNNCell):
    """A cell of one's own."""


class Mixed(Bilinear):
    """With a rule that does not count."""


UNCOUNTED: dict[str, tuple[tuple[int, ...], Callable[[Any], Any], str]] = {
    "an own layer": ((5, 4), Bilinear(name="odd"), "odd"),
    "an own layer in time": ((5, 4), layers.TimeDistributed(Bilinear(name="odd")), "odd"),
    "in a closed layer": (
        (5,),
        lambda x: layers.TimeDistributed(Bilinear(), name="odd")(
            layers.Embedding(9, 4, mask_zero=True)(x)
        ),
        "odd",
    ),
    "an own cell": ((5, 4), layers.RNN(Recurrent(3), name="odd"), "odd"),
    "a rule without a count": ((5, 4), Mixed(name="odd"), "odd"),
    "a raw convolution": (
        (8, 8, 3),
        lambda x: ops.conv(x, np.ones((3, 3, 3, 2), "float32")),
        "ops.Conv",
    ),
    "three factors": ((5, 4), lambda x: ops.einsum("bij,bij,bkj->bik", x, x, x), "ops.Einsum"),
}


@pytest.mark.parametrize("name", UNCOUNTED)
def test_what_is_not_counted_is_named(name: str) -> None:
    shape, layer, said = UNCOUNTED[name]
    register_rule(Mixed, Rule(new_channels, filter_axes={"matrix": -1}))
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layers.Dense(3)(layer(inputs)))
    for figure in (count_macs, prunable_fraction, lambda model: plan(model, {})):
        with pytest.warns(UserWarning, match=f"no rule counts .*({said})"):
            figure(model)


def test_an_open_size_counts_nothing_and_names_nothing() -> None:
    inputs = keras.Input((None, None, None, 3))
    x = layers.TimeDistributed(layers.Conv2D(4, 3))(inputs)
    x = layers.TimeDistributed(layers.GlobalAveragePooling2D())(x)
    model = keras.Model(inputs, Bilinear()(x))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plan(model, {}).macs_before is None


def test_the_kinds_are_those_of_keras() -> None:
    """A class that Keras renames would not be counted any more."""
    known = {kind_of(getattr(layers, name)) for name in dir(layers) if name[0].isupper()}
    known |= {kind_of(cls) for cls in keras.Operation.__subclasses__()}
    assert known >= UNCOUNTED_OPERATIONS | COSTS.keys()


def test_every_frame_counts() -> None:
    """In `TimeDistributed`, an encoder runs once a frame: the whole is 4 encoders and the rest."""
    encoder = frames()
    inputs = keras.Input((4, 8, 8, 3))
    x = layers.TimeDistributed(encoder)(inputs)
    x = layers.Conv1D(8, 2, activation="relu")(x)
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalMaxPooling1D()(x)))
    assert count_macs(model) == 4 * count_macs(encoder) + 3 * 2 * 6 * 8 + 8 * 3
    assert prunable_fraction(model) > 0.99
    made = plan(model, {"a": [0, 1], "b": [5]})
    # frames * positions * window * channels read * channels made
    encoders = 4 * 16 * 9 * (3 * 3 + 3 * 5)
    assert made.macs_after == encoders + 3 * 2 * 5 * 8 + 8 * 3
    result = prune_filters(
        model, macs=0.5, rounds=1, finetune=lambda small, number: None, evaluate=lambda small: 0.5,
        selection=Selection(round_to=1),
    )  # fmt: skip
    share = result.history[-1].share
    assert 0.4 < share < 0.5001 and share == count_macs(result.model) / count_macs(model)
