"""BatchNormalization in one operation while training.

    y = gamma * (x - mean(x)) / sqrt(var(x) + epsilon) + beta        (Ioffe and Szegedy 2015)

Keras computes this in a dozen operations, each of which passes over all activations, and so does
their gradient. TensorFlow's FusedBatchNormV3 is the same equation in two passes. On a processor the
dozen takes more time than the convolutions of a mobile network do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from kpipe.keras_internals import layers_within

__all__ = ["fused_normalization"]


@contextmanager
def fused_normalization(model: keras.Model) -> Iterator[None]:
    """Train faster: each BatchNormalization of a model is one operation on its batches.

    >>> with fused_normalization(model):  # doctest: +SKIP
    ...     model.fit(data, epochs=10)

    Outputs, gradients and moving statistics are Keras' but for rounding. What the model is, saves
    and computes in inference does not change; afterwards its layers are as they were. Layers that
    the operation does not cover run as ever: those frozen, with a mask, renormalizing, synchronized
    between replicas, in double precision, or of another input than `(batch, height, width,
    channels)`.

    Args:
        model: built; its training function is traced within.
    """
    layers = [
        layer
        for layer in layers_within(model)
        if type(layer) is keras.layers.BatchNormalization
        and not layer.renorm
        and not layer.synchronized
        and layer.variable_dtype == "float32"
        and "call" not in vars(layer)  # as within another such context
    ]
    for layer in layers:
        # Of the object, beside the class: past Keras, which would track it as a part of the layer.
        object.__setattr__(layer, "call", partial(_call, layer))
    try:
        yield
    finally:
        for layer in layers:
            object.__delattr__(layer, "call")


def _call(
    layer: keras.layers.BatchNormalization,
    inputs: tf.Tensor,
    training: bool | None = None,
    mask: Any = None,
) -> tf.Tensor:
    """As BatchNormalization.call; statistics and half precision as there."""
    known = inputs.shape.rank == 4 and inputs.shape[-1] is not None
    fits = known and layer.axis in (-1, 3) and mask is None
    if not (training and layer.trainable and fits):
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
    # The operation returns the variance of the population that the batch is a sample of.
    count = tf.cast(tf.size(inputs) // channels, "float32")
    variance *= (count - 1) / count
    for moving, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        moving.assign(moving * layer.momentum + value * (1 - layer.momentum))
    return tf.cast(outputs, layer.compute_dtype)
