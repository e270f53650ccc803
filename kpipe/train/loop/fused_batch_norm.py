"""BatchNormalization as one operation during training.

    y = gamma * (x - mean(x)) / sqrt(var(x) + epsilon) + beta        (Ioffe and Szegedy 2015)

Keras computes this in a dozen operations, each of which reads all activations, and so do their
gradients. TensorFlow's FusedBatchNormV3 computes the same equation in two passes. On a CPU the
dozen operations take longer than the convolutions of a mobile network.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from kpipe.keras_internals import layers_within
from kpipe.train.loop.folded_batch_norm import folded_normalization
from kpipe.train.loop.replaced_method import replaced_method
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["fused_normalization"]


@names_wrong_kinds
def fused_normalization(model: keras.Model) -> AbstractContextManager[None]:
    """Train faster within this context: run each BatchNormalization as one operation or none.

    A normalization that trains is one operation. A frozen one is folded into the convolution before
    it, in the model's training and test steps, if nothing else reads that convolution's output.
    Outputs, gradients and moving statistics equal Keras' up to rounding. The model, its saved files
    and its predictions do not change. All other layers run as in Keras: those with a mask, with
    `renorm`, synchronized between replicas, in double precision, or with an input other than
    `(batch, height, width, channels)`; and frozen ones in half precision or in a model with a
    `call` of its own.

    Args:
        model: a built model whose training function is traced within the context.

    Example:
        >>> import keras, numpy as np
        >>> from kpipe.train import fused_normalization
        >>> pixels = keras.Input((8, 8, 3))
        >>> x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(pixels))
        >>> model = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x))
        >>> model.compile("sgd", "mse")
        >>> with fused_normalization(model):
        ...     history = model.fit(np.ones((8, 8, 8, 3)), np.ones((8, 4)), verbose=0)
    """
    layers = [
        layer
        for layer in layers_within(model)
        if type(layer) is keras.layers.BatchNormalization
        and not layer.renorm
        and not layer.synchronized
        and layer.variable_dtype == "float32"
        and "call" not in vars(layer)  # as in a nested context
    ]
    return _fused(model, layers)


@contextmanager
def _fused(model: keras.Model, layers: list[keras.layers.BatchNormalization]) -> Iterator[None]:
    with folded_normalization(model), ExitStack() as stack:
        for layer in layers:
            if "call" not in vars(layer):  # it is not folded
                stack.enter_context(replaced_method(layer, "call", partial(_call, layer)))
        yield


def _call(
    layer: keras.layers.BatchNormalization,
    inputs: tf.Tensor,
    training: bool | None = None,
    mask: Any = None,
) -> tf.Tensor:
    """Replace BatchNormalization.call; treats statistics and half precision as Keras does."""
    is_map = inputs.shape.rank == 4 and inputs.shape[-1] is not None
    supported = is_map and layer.axis in (-1, 3) and mask is None
    if not (training and layer.trainable and supported):
        return type(layer).call(layer, inputs, training=training, mask=mask)
    inputs, channels = tf.cast(inputs, "float32"), inputs.shape[-1]
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=layer.gamma if layer.scale else tf.ones(channels),
        offset=layer.beta if layer.center else tf.zeros(channels),
        mean=[],
        variance=[],
        epsilon=layer.epsilon,
    )
    # The operation returns the unbiased variance, Keras uses the biased one.
    count = tf.cast(tf.size(inputs) // channels, "float32")
    variance *= (count - 1) / count
    for moving, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        moving.assign(moving * layer.momentum + value * (1 - layer.momentum))
    return tf.cast(outputs, layer.compute_dtype)
