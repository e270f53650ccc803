"""BatchNormalization statistics measured anew.

A mean of the weights of several networks has no statistics of its own: those of each network belong
to its own activations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kpipe.errors import TrainingError
from kpipe.keras_graph import require_graph
from kpipe.keras_internals import layers_within
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["update_bn"]


@names_wrong_kinds
def update_bn(model: keras.Model, batches: Iterable[Any]) -> int:
    """Set the moving statistics of BatchNormalization layers to their mean over batches.

    The model runs in training mode, so that each layer sees what it saw in training. Frozen layers
    run in inference mode and keep their statistics.

    Source: `torch.optim.swa_utils.update_bn`; Izmailov et al. 2018, arXiv 1803.05407.

    Args:
        model: one of a single input; changed in place, and not at all after an error.
        batches: images as the model takes them, or tuples that begin with such a batch; training
            images, augmented as in training. Not read if all BatchNormalizations are frozen.

    Returns:
        The number of layers whose statistics were measured.

    Raises:
        TrainingError: no batches, images that are NaN or do not fit the model, or a model of
            several inputs.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from kpipe.train import update_bn
        >>> norm = keras.layers.BatchNormalization()
        >>> model = keras.Sequential([keras.Input((1,)), norm])
        >>> update_bn(model, [np.array([[1.0], [3.0]]), np.array([[5.0], [7.0]])])
        1
        >>> float(norm.moving_mean[0]), float(norm.moving_variance[0])
        (4.0, 1.0)
    """
    layers = [
        layer
        for layer in layers_within(model)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    if not layers:
        return 0
    statistics = [one for layer in layers for one in (layer.moving_mean, layer.moving_variance)]
    momenta, values = [layer.momentum for layer in layers], [one.numpy() for one in statistics]
    try:
        for number, images in enumerate(_images(model, batches)):
            for layer in layers:
                layer.momentum = number / (number + 1)  # the mean of all batches so far
            model(images, training=True)
    except BaseException:
        for one, value in zip(statistics, values, strict=True):
            one.assign(value)
        raise
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    return len(layers)


def _images(model: keras.Model, batches: Iterable[Any]) -> Iterator[Any]:
    """Yield the images of each batch, which are refused unless the model takes them."""
    inputs = require_graph(model, TrainingError).inputs
    if len(inputs) > 1:
        raise TrainingError(
            "normalization statistics are measured on images alone",
            expected="a model of one input",
            received=f"{len(inputs)} inputs",
        )
    expected, batch = tf.TensorShape(inputs[0].shape), None
    for batch in batches:
        images = batch[0] if isinstance(batch, tuple) else batch
        shape = tuple(getattr(images, "shape", ()))
        if not shape or not expected.is_compatible_with(shape):
            raise TrainingError(
                "the images do not fit the model",
                expected=f"batches of images, {tuple(expected)}",
                received=str(shape) if shape else type(images).__name__,
            )
        if not np.isfinite(images).all():
            raise TrainingError("a batch of images holds NaN or infinity")
        yield images
    if batch is None:
        raise TrainingError(
            "there are no batches to measure normalization statistics on", expected="1 or more"
        )
