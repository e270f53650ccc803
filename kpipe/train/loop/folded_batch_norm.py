"""BatchNormalizations folded into the convolutions before them, where they use their statistics.

    norm(conv(x, kernel) + bias) = conv(x, kernel * s) + (bias - mean) * s + beta
    s                            = gamma / sqrt(variance + epsilon)

In inference, and in a frozen layer, the statistics are constants. So the product with s, which
reads and writes all activations, becomes one of the kernel, which is far smaller. The gradient
reaches the kernel through that product. Without products in between, TensorFlow also joins a
convolution, its offset and its ReLU in inference.

The output of such a convolution is no longer what its layer returns. So a pair is folded only if
nothing but the normalization reads that output, and only while the function in question is traced:
a callback that calls a layer or another model sees what Keras computes.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import keras
import tensorflow as tf

from kpipe.keras_graph import find_graph
from kpipe.keras_internals import layers_within, nodes_in_order, outputs_by_call
from kpipe.train.loop.replaced_method import replaced_method
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["foldable", "folded_inference", "folded_normalization"]

_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
_STEPS = ("train_step", "test_step")
Pair = tuple[Any, keras.layers.BatchNormalization]


@names_wrong_kinds
def folded_inference(model: keras.Model) -> Callable[[Any], Any]:
    """Return a function that predicts as the model does, and faster.

    It folds each BatchNormalization into the convolution before it, if nothing else reads that
    convolution's output. The model does not change. Its weights are read at each call.

    Args:
        model: a built model of one input. One with a `call` of its own runs as it is.

    Returns:
        (images) -> what `model(images, training=False)` returns, up to rounding.

    Example:
        >>> import keras, numpy as np
        >>> from kpipe.train import folded_inference
        >>> pixels = keras.Input((8, 8, 3))
        >>> x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(pixels))
        >>> model = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x))
        >>> images = np.ones((2, 8, 8, 3), "float32")
        >>> np.allclose(folded_inference(model)(images), model(images), atol=1e-5)
        True
    """
    pairs = foldable(model, frozen=False)

    def predict(images: Any) -> Any:
        with _folded(pairs, lambda norm: True):  # while it is traced
            return model(images, training=False)

    return tf.function(predict, reduce_retracing=True)


def foldable(model: keras.Model, frozen: bool = True) -> list[Pair]:
    """Return the convolutions of a model, each with the normalization to fold into it.

    A model with a `call` of its own has none, since it may use its layers in any way.

    Args:
        model: it does not change.
        frozen: leave out normalizations that train.
    """
    within = layers_within(model)
    models = [one for one in within if isinstance(one, keras.Model)]
    if not all(find_graph(one) or _is_known(type(one)) for one in models):
        return []
    # A layer that holds others may call them in any way.
    held = {
        id(inner)
        for one in within
        if not isinstance(one, keras.Model)
        for inner in layers_within(one, include_self=False)
    }
    readers: dict[int, set[int]] = defaultdict(set)
    made: dict[int, Any] = {}
    norms = []
    for function in filter(None, map(find_graph, models)):
        for tensor in function.outputs:
            readers[id(tensor)].add(id(function))
        for node in nodes_in_order(function):
            for tensor in node.input_tensors:
                readers[id(tensor)].add(id(node))
            for tensor in node.outputs:
                made[id(tensor)] = node.operation
            if type(node.operation) is keras.layers.BatchNormalization:
                norms.append((node.operation, node.input_tensors[0]))
    pairs = {
        id(norm): (made.get(id(tensor)), norm)
        for norm, tensor in norms
        if len(readers[id(tensor)]) == 1
    }
    return [
        (conv, norm)
        for conv, norm in pairs.values()
        if not (frozen and norm.trainable) and not held & {id(conv), id(norm)} and _fit(conv, norm)
    ]


def _is_known(owner: Any) -> bool:
    return str(owner.__module__).startswith(("keras.", "kpipe."))


def _fit(conv: Any, norm: keras.layers.BatchNormalization) -> bool:
    return (
        type(conv) in _CONVOLUTIONS
        and conv.activation is keras.activations.linear
        and conv.activity_regularizer is None
        and conv.data_format == "channels_last"
        and norm.axis in (-1, 3)
        and all(
            len(outputs_by_call(layer)) == 1
            and layer.compute_dtype == layer.variable_dtype == "float32"
            and "call" not in vars(layer)  # as in a nested context
            for layer in (conv, norm)
        )
    )


@contextmanager
def folded_normalization(model: keras.Model) -> Iterator[None]:
    """Fold frozen normalizations in the training and test steps that are traced within.

    Args:
        model: a built model; its layers, weights and files do not change.
    """
    inside = threading.local()  # a replica of a distributed training has a thread of its own

    def active(norm: keras.layers.BatchNormalization) -> bool:
        return getattr(inside, "step", False) and not norm.trainable

    def marked(step: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(step)
        def called(*args: Any, **kwargs: Any) -> Any:
            inside.step = True
            try:
                return step(*args, **kwargs)
            finally:
                inside.step = False

        return called

    # Steps of a user's own may call layers in any way.
    known = isinstance(model, keras.Model) and all(
        _is_known(getattr(type(model), name)) for name in (*_STEPS, "compute_loss")
    )
    pairs = foldable(model) if known else []
    with _folded(pairs, active) as stack:
        for name in _STEPS if pairs else ():
            stack.enter_context(replaced_method(model, name, marked(getattr(model, name))))
        yield


@contextmanager
def _folded(pairs: Sequence[Pair], active: Callable[[Any], bool]) -> Iterator[ExitStack]:
    with ExitStack() as stack:
        for conv, norm in pairs:
            stack.enter_context(replaced_method(conv, "call", _convolution(conv, norm, active)))
            stack.enter_context(replaced_method(norm, "call", _offset(conv, norm, active)))
        yield stack


def _convolution(
    conv: Any, norm: keras.layers.BatchNormalization, active: Callable[[Any], bool]
) -> Callable[..., Any]:
    def call(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if not active(norm):
            return type(conv).call(conv, inputs, *args, **kwargs)
        kernel = tf.convert_to_tensor(conv.kernel)
        if isinstance(conv, keras.layers.Conv2D):
            return conv.convolution_op(inputs, kernel * _scale(norm))
        # (height, width, channels, multiplier), and the output's channels are the last two.
        scaled = kernel * tf.reshape(_scale(norm), kernel.shape[2:])
        return keras.ops.depthwise_conv(
            inputs,
            scaled,
            strides=conv.strides,
            padding=conv.padding,
            data_format=conv.data_format,
            dilation_rate=conv.dilation_rate,
        )

    return call


def _offset(
    conv: Any, norm: keras.layers.BatchNormalization, active: Callable[[Any], bool]
) -> Callable[..., Any]:
    def call(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if not active(norm):
            return type(norm).call(norm, inputs, *args, **kwargs)
        centered = (conv.bias if conv.use_bias else 0.0) - tf.convert_to_tensor(norm.moving_mean)
        offset = centered * _scale(norm)
        return tf.nn.bias_add(inputs, offset + norm.beta if norm.center else offset)

    return call


def _scale(norm: keras.layers.BatchNormalization) -> Any:
    scale = tf.math.rsqrt(tf.convert_to_tensor(norm.moving_variance) + norm.epsilon)
    return scale * norm.gamma if norm.scale else scale
