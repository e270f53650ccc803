"""BatchNormalization statistics of given images, for networks with random weights."""

from __future__ import annotations

import keras
import numpy as np

from kpipe.keras_internals import layers_within


def set_moving_statistics(model: keras.Model, images: np.ndarray) -> None:
    """Set the moving mean and variance of trainable layers to those of one batch."""
    layers = [
        layer
        for layer in layers_within(model)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    model(images, training=True)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
