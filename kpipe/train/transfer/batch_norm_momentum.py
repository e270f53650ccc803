"""BatchNormalization in short trainings.

    moving <- momentum * moving + (1 - momentum) * batch

Pretrained networks carry a momentum of 0.99 or 0.999, right for a million steps. Over the few
hundred steps of a fine-tuning the moving statistics then stay behind the weights, and a network
that is good on its batches is bad in inference. Filter removal changes the statistics at once.
"""

from __future__ import annotations

from collections.abc import Iterable

import keras
import tensorflow as tf

from kpipe.errors import TrainingError
from kpipe.keras_internals import layers_within

__all__ = ["adapt_bn_momentum", "recalibrate"]

# The moving statistics forget within a fifth of an epoch, and always average two batches at least.
_HORIZONS_PER_EPOCH = 5
_LOWEST_MOMENTUM = 0.5


def adapt_bn_momentum(model: keras.Model, steps_per_epoch: int) -> float:
    """Lower the momentum of what trains, so that statistics follow the weights within an epoch.

    Args:
        model: its trainable BatchNormalization layers are changed in place; a lower momentum stays.
        steps_per_epoch: batches in an epoch.

    Returns:
        The highest momentum that is left.
    """
    momentum = max(_LOWEST_MOMENTUM, 1 - _HORIZONS_PER_EPOCH / steps_per_epoch)
    for layer in _normalizations(model):
        layer.momentum = min(layer.momentum, momentum)
    return momentum


def recalibrate(model: keras.Model, images: Iterable[tf.Tensor]) -> None:
    """Measure the statistics of every trainable BatchNormalization anew, weights as they are.

    Each layer ends with the mean of its batches' statistics.

    Args:
        model: changed in place.
        images: batches float32 `(batch, height, width, 3)` in [0, 255], as in training.

    Raises:
        TrainingError: no batches.
    """
    layers = _normalizations(model)
    momenta = [layer.momentum for layer in layers]
    count = 0
    try:
        for count, batch in enumerate(images, 1):
            for layer in layers:
                # 0 for the first batch, which so replaces what was there; then a running mean.
                layer.momentum = 1 - 1 / count
            model(batch, training=True)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    if not count:
        raise TrainingError("there are no images to recalibrate the statistics on")


def _normalizations(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    return [
        layer
        for layer in layers_within(model)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
