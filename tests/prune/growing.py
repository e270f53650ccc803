"""Random graphs of all layers that have a rule, for Hypothesis to grow and shrink.

start: an image; step: one of the functions below on one or two earlier tensors; end: tensors that
nothing reads are pooled or flattened, joined and classified.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from hypothesis import strategies as st
from keras import layers, ops

from tests.prune import nets

__all__ = ["grow"]

Draw = Callable[[st.SearchStrategy[Any]], Any]
Tensor = Any

WIDTHS = st.sampled_from([2, 3, 4, 6, 8])
ACTIVATIONS = st.sampled_from([None, "relu", "silu", "gelu", "sigmoid", "softmax"])


def _spatial(x: Tensor) -> tuple[int, int]:
    return x.shape[1], x.shape[2]


def _convolution(draw: Draw, x: Tensor) -> Tensor:
    groups = draw(st.sampled_from([g for g in (1, 1, 2, 3) if x.shape[-1] % g == 0]))
    return layers.Conv2D(
        groups * draw(WIDTHS),
        draw(st.sampled_from([1, 3])),
        draw(st.sampled_from([1, 2])),
        padding="same",
        groups=groups,
        use_bias=draw(st.booleans()),
        activation=draw(ACTIVATIONS),
    )(x)


def _dilated(draw: Draw, x: Tensor) -> Tensor:
    return layers.Conv2D(draw(WIDTHS), 3, padding="same", dilation_rate=2)(x)


def _depthwise(draw: Draw, x: Tensor) -> Tensor:
    multiplier = draw(st.sampled_from([1, 1, 2]))
    return layers.DepthwiseConv2D(3, padding="same", depth_multiplier=multiplier)(x)


def _separable(draw: Draw, x: Tensor) -> Tensor:
    multiplier = draw(st.sampled_from([1, 2]))
    return layers.SeparableConv2D(
        draw(WIDTHS), 3, padding="same", depth_multiplier=multiplier, use_bias=draw(st.booleans())
    )(x)


def _transposed(draw: Draw, x: Tensor) -> Tensor:
    strides = 2 if max(_spatial(x)) <= nets.SIZE else 1
    return layers.Conv2DTranspose(draw(WIDTHS), 3, strides, padding="same")(x)


def _dense(draw: Draw, x: Tensor) -> Tensor:
    return layers.Dense(draw(WIDTHS), draw(ACTIVATIONS))(x)


def _row_convolution(draw: Draw, x: Tensor) -> Tensor:
    """A one-dimensional convolution over all positions."""
    height, width = _spatial(x)
    rows = layers.Reshape((height * width, x.shape[-1]))(x)
    rows = layers.Conv1D(draw(WIDTHS), 3, padding="same")(rows)
    return layers.Reshape((height, width, rows.shape[-1]))(rows)


def _normalization(draw: Draw, x: Tensor) -> Tensor:
    groups = draw(st.sampled_from([g for g in (-1, 1, 2) if g < 0 or x.shape[-1] % g == 0]))
    kinds = [
        layers.BatchNormalization(),
        layers.BatchNormalization(center=False, scale=False),
        layers.GroupNormalization(groups),
        layers.LayerNormalization(),
    ]
    return draw(st.sampled_from(kinds))(x)


def _activation(draw: Draw, x: Tensor) -> Tensor:
    functions = [
        layers.ReLU(6.0), layers.LeakyReLU(), layers.ELU(), layers.Activation("hard_silu"),
        layers.PReLU(), layers.PReLU(shared_axes=[1, 2]), layers.Softmax(), ops.relu6, ops.gelu,
        ops.hard_sigmoid, ops.tanh,
    ]  # fmt: skip
    return draw(st.sampled_from(functions))(x)


def _elementwise(draw: Draw, x: Tensor) -> Tensor:
    functions: list[Callable[[Tensor], Tensor]] = [
        layers.Dropout(0.3), layers.SpatialDropout2D(0.3), layers.GaussianNoise(0.1),
        layers.Rescaling(0.5, 0.1), lambda t: t * 0.5, lambda t: 1.0 - t, lambda t: t / 2.0 + 0.3,
        ops.square,
    ]  # fmt: skip
    return draw(st.sampled_from(functions))(x)


def _space(draw: Draw, x: Tensor) -> Tensor:
    functions: list[Any] = [
        layers.ZeroPadding2D(((1, 0), (0, 1))),
        lambda t: ops.pad(t, ((0, 0), (0, 1), (1, 0), (0, 0)), constant_values=0.5),
    ]
    if min(_spatial(x)) >= 4:
        functions += [
            layers.MaxPooling2D(2), layers.AveragePooling2D(3, 1, padding="same"),
            layers.Cropping2D(((0, 1), (1, 0))), layers.MaxPooling2D(3, 2, padding="same"),
            lambda t: t[:, 1:, ::2], lambda t: ops.image.resize(t, (3, 4)),
        ]  # fmt: skip
    if max(_spatial(x)) <= nets.SIZE:
        functions += [layers.UpSampling2D(2), layers.Resizing(5, 7)]
    return draw(st.sampled_from(functions))(x)


def _squeeze_and_excite(draw: Draw, x: Tensor) -> Tensor:
    channels = x.shape[-1]
    s = layers.GlobalAveragePooling2D(keepdims=draw(st.booleans()))(x)
    if len(s.shape) == 2:
        s = layers.Reshape((1, 1, channels))(s)
    s = layers.Conv2D(draw(WIDTHS), 1, activation="relu")(s)
    s = layers.Conv2D(channels, 1, activation="sigmoid")(s)
    return draw(st.sampled_from([layers.Multiply(), lambda pair: pair[0] * pair[1]]))([x, s])


def _residual(draw: Draw, x: Tensor) -> Tensor:
    y = layers.Conv2D(x.shape[-1], 3, padding="same")(x)
    y = layers.BatchNormalization()(y) if draw(st.booleans()) else y
    return _joined(draw, x, y)


def _twice(draw: Draw, x: Tensor) -> Tensor:
    shared = layers.Conv2D(x.shape[-1], 3, padding="same", activation=draw(ACTIVATIONS))
    return shared(layers.ReLU()(shared(x)))


def _nested(draw: Draw, x: Tensor) -> Tensor:
    inner = keras.Input(x.shape[1:])
    y = layers.Conv2D(draw(WIDTHS), 3, padding="same")(inner)
    return keras.Model(inner, layers.ReLU()(layers.BatchNormalization()(y)))(x)


def _joined(draw: Draw, x: Tensor, y: Tensor) -> Tensor:
    """Merge tensors of one shape, concatenate those of one size; else scale one by the other."""
    if x.shape == y.shape:
        kinds: list[Any] = [
            layers.Add(), layers.Subtract(), layers.Multiply(), layers.Average(), layers.Maximum(),
            layers.Minimum(), lambda pair: pair[0] + pair[1], lambda pair: pair[0] - pair[1],
            lambda pair: ops.maximum(*pair), layers.Concatenate(),
        ]  # fmt: skip
        return draw(st.sampled_from(kinds))([x, y])
    if _spatial(x) == _spatial(y):
        parts = [x, y] if draw(st.booleans()) else [y, x, y]
        return draw(st.sampled_from([layers.Concatenate(), lambda p: ops.concatenate(p, -1)]))(
            parts
        )
    scale = layers.GlobalMaxPooling2D(keepdims=True)(y)
    scale = layers.Conv2D(draw(st.sampled_from([1, x.shape[-1]])), 1, activation="sigmoid")(scale)
    return layers.Multiply()([x, scale])


def _parted(draw: Draw, x: Tensor) -> Tensor:
    """Some of the channels convolved, in front of or behind the others."""
    place = draw(st.integers(1, x.shape[-1] - 1)) if x.shape[-1] > 1 else 0
    if not place:
        return x
    split = draw(st.booleans())
    parts = ops.split(x, [place], -1) if split else [x[..., :place], x[..., place:]]
    parts[0] = layers.Conv2D(draw(WIDTHS), 1)(parts[0])
    return layers.Concatenate()(parts[:: draw(st.sampled_from([1, -1]))])


def _laid_out(draw: Draw, x: Tensor) -> Tensor:
    """A shuffle of channels, rows for columns, channels first and back, steps over the rows."""
    groups = draw(st.sampled_from([g for g in (1, 2, 3, 4) if x.shape[-1] % g == 0]))
    functions: list[Callable[[Tensor], Tensor]] = [
        lambda t: nets.shuffled(t, groups), layers.Permute((2, 1, 3)), layers.Softmax(axis=1),
        layers.LayerNormalization(axis=(1, 2)), lambda t: ops.softmax(t, axis=2),
        lambda t: ops.transpose(ops.moveaxis(t, -1, 1), (0, 3, 2, 1)),
        layers.TimeDistributed(layers.Conv1D(4, 3, padding="same")),
        layers.TimeDistributed(layers.BatchNormalization()),
    ]  # fmt: skip
    return draw(st.sampled_from(functions))(x)


STEPS: list[Callable[[Draw, Tensor], Tensor]] = [
    _convolution, _dilated, _depthwise, _separable, _transposed, _dense, _row_convolution,
    _normalization, _activation, _elementwise, _space, _squeeze_and_excite, _residual, _twice,
    _nested, _parted, _laid_out,
]  # fmt: skip


def grow(draw: Draw, steps: int = 10) -> keras.Model:
    """A model of one image input and one output (batch, 3).

    Args:
        draw: of Hypothesis' `st.data()`; a strategy must not build layers, which draw seeds.
        steps: the maximum number.
    """
    inputs = nets.image()
    at_hand, unread = [layers.Conv2D(6, 3, padding="same")(inputs)], [0]
    for _ in range(draw(st.integers(1, steps))):
        place = draw(st.sampled_from(range(len(at_hand))))
        read = {place}
        if len(at_hand) > 1 and draw(st.integers(0, 3)) == 0:
            other = draw(st.sampled_from([n for n in range(len(at_hand)) if n != place]))
            read.add(other)
            made = _joined(draw, at_hand[place], at_hand[other])
        else:
            made = draw(st.sampled_from(STEPS))(draw, at_hand[place])
        if made.shape[-1] > 32:
            continue
        at_hand.append(made)
        unread = [n for n in unread if n not in read] + [len(at_hand) - 1]
    ends = []
    for n in unread:
        small = at_hand[n].shape[1] * at_hand[n].shape[2] <= 16
        flat = (
            layers.Flatten() if small and draw(st.booleans()) else layers.GlobalAveragePooling2D()
        )
        ends.append(flat(at_hand[n]))
    x = layers.Concatenate()(ends) if len(ends) > 1 else ends[0]
    return keras.Model(inputs, layers.Dense(3, name="logits")(layers.Dense(7, "relu")(x)))
