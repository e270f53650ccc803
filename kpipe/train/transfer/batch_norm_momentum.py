"""The momentum of BatchNormalization in short training runs.

    moving <- momentum * moving + (1 - momentum) * batch

Pretrained networks have a momentum of 0.99 or 0.999, which suits a million steps. Over the few
hundred steps of fine-tuning, the moving mean and variance then lag behind the weights, and a model
that is accurate in training is inaccurate in inference.
"""

from __future__ import annotations

import keras

from kpipe.keras_internals import layers_within
from kpipe.train.argument_checks import refuse_out_of_range
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["adapt_bn_momentum"]

# The moving statistics cover a fifth of an epoch, and at least two batches.
_HORIZONS_PER_EPOCH = 5
_LOWEST_MOMENTUM = 0.5


@names_wrong_kinds
def adapt_bn_momentum(model: keras.Model, steps_per_epoch: int) -> float:
    """Lower the momentum of trainable BatchNormalization layers to the length of an epoch.

    Args:
        model: its layers are changed in place; a momentum that is already lower stays.
        steps_per_epoch: batches in an epoch.

    Returns:
        The upper bound of the momentum.

    Raises:
        TrainingError: `steps_per_epoch` is out of range.

    Example:
        >>> import keras
        >>> from kpipe.train import adapt_bn_momentum
        >>> norm = keras.layers.BatchNormalization(momentum=0.99)
        >>> adapt_bn_momentum(keras.Sequential([keras.Input((4,)), norm]), steps_per_epoch=50)
        0.9
        >>> norm.momentum
        0.9
    """
    refuse_out_of_range("steps_per_epoch", steps_per_epoch, 1)
    momentum = max(_LOWEST_MOMENTUM, 1 - _HORIZONS_PER_EPOCH / steps_per_epoch)
    for layer in layers_within(model):
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
            layer.momentum = min(layer.momentum, momentum)
    return momentum
