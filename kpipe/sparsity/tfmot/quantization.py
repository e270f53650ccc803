"""Quantization-aware training by TFMOT: the network learns weights that lose little in int8.

    forward   weights and activations rounded to 8 bits and back, within their measured ranges
    backward  as without rounding                                (Jacob et al. 2018,
                                                                  arXiv:1712.05877, section 3)

The result is an ordinary model, to be quantized like any other: conversion measures the ranges of
its activations.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras
import tensorflow as tf
import tf_keras

from kpipe.errors import SparsityError
from kpipe.sparsity.bridge.mapping import CONTAINERS, leaves
from kpipe.sparsity.bridge.operation import KerasOperation
from kpipe.sparsity.bridge.twins import to_keras, to_tf_keras
from kpipe.sparsity.tf_keras_internals import CustomScaleLayer, LayerScale, layers_within
from kpipe.sparsity.tfmot.batches import Batches
from kpipe.sparsity.tfmot.loading import int8_registry, quant_ops, tfmot
from kpipe.sparsity.tfmot.training import RestoreZeros, train
from kpipe.sparsity.tfmot.training_settings import TrainingJob, TrainingSettings
from kpipe.sparsity.tfmot.wrapping import refuse_activity_regularizers, wrap_layers
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["train_quantized"]

# Layers that TFMOT can rebuild only by these names.
_UNREGISTERED = {kind.__name__: kind for kind in (CustomScaleLayer, KerasOperation, LayerScale)}
_REGISTRY = int8_registry.Default8BitQuantizeRegistry()
_DEFAULTS = TrainingSettings(learning_rate=1e-5)
_RANGE_BATCHES = 8


@names_wrong_kinds
def train_quantized(
    model: keras.Model,
    data: Batches,
    *,
    epochs: int,
    steps_per_epoch: int,
    settings: TrainingSettings = _DEFAULTS,
    folder: str | os.PathLike[str] | None = None,
) -> keras.Model:
    """Train a classifier with emulated int8 rounding.

    TFMOT emulates the rounding in convolutions, depthwise convolutions, Dense layers, the
    normalizations after them, common activations, pooling, Add and Concatenate. Other layers
    compute in float32. Zeros of magnitude-pruned kernels stay zero.

    Args:
        model: a trained functional or Sequential Keras 3 classifier with a softmax output and
            without nested models; it is not changed.
        data: see `prune_magnitude`.
        epochs: number of epochs.
        steps_per_epoch: batches in each epoch.
        settings: how to train; the learning rate should be small, as the weights move little.
        folder: for a checkpoint after each epoch, from which an interrupted training resumes.

    Returns:
        A Keras 3 model with the same layers and names, for `kpipe.lite.convert` to int8.

    Raises:
        SparsityError: for values out of range, nested models, nothing to quantize, layers that
            tf_keras does not have, a loss that is not finite, data that ends too early, or a
            folder of another training run.

    Source:
        Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference", section 3, arXiv:1712.05877.

    Example:
        >>> import keras, numpy as np, tensorflow as tf
        >>> from kpipe.sparsity import train_quantized
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(),
        ...     keras.layers.Dense(2, activation="softmax", name="top")])
        >>> data = tf.data.Dataset.from_tensors((np.zeros((4, 8, 8, 3), "float32"), [0, 1, 0, 1]))
        >>> trained = train_quantized(model, data, epochs=1, steps_per_epoch=1)
        >>> [layer.name for layer in trained.layers] == [layer.name for layer in model.layers]
        True
    """
    job = TrainingJob(epochs, steps_per_epoch, settings, folder)
    _refuse_nested_models(model)
    plain = to_tf_keras(model)
    refuse_activity_regularizers(plain.layers)
    supported = {layer.name for layer in plain.layers if _is_supported(layer)}
    if not supported:
        raise SparsityError(
            f"TFMOT can quantize nothing in {model.name!r}",
            expected="a convolution or a Dense layer that is used once",
        )
    annotate = tfmot.quantization.keras.quantize_annotate_layer
    restorable, _ = wrap_layers(plain, lambda layer: None, settings.seed)
    annotated = tf_keras.models.clone_model(
        restorable,
        clone_function=lambda layer: annotate(layer) if layer.name in supported else layer,
    )
    try:
        with tfmot.quantization.keras.quantize_scope(_UNREGISTERED):
            twin = tfmot.quantization.keras.quantize_apply(annotated)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise SparsityError(
            f"TFMOT cannot rebuild {model.name!r} for quantization-aware training",
            received=f"{type(error).__name__}: {error}",
            fix="convert it without such training: kpipe.lite.convert(model, 'int8', images)",
        ) from error
    train(
        twin,
        data,
        job,
        source=model,
        method={"bits": 8},
        callbacks=[RestoreZeros(twin)],
        prepare=partial(_measure_ranges, twin),
    )
    return to_keras(_unwrap(twin, to_tf_keras(model)), template=model)


def _measure_ranges(twin: tf_keras.Model, batches: tf.data.Dataset) -> None:
    """Set the ranges of activations to the mean ranges of a few batches.

    TFMOT starts at -6 to 6 and moves by 0.1 % a step: a short training would see nothing but
    clipped activations.
    """
    normalizations = [
        layer
        for layer in layers_within(twin)
        if isinstance(layer, tf_keras.layers.BatchNormalization) and layer.trainable
    ]
    for layer in normalizations:
        layer.trainable = False  # keeps their moving means and variances
    with _range_momentum() as set_momentum:
        for number, (images, *_) in enumerate(batches.take(_RANGE_BATCHES)):
            set_momentum(number / (number + 1))
            twin(images, training=True)
    for layer in normalizations:
        layer.trainable = True


@contextmanager
def _range_momentum() -> Iterator[Callable[[float], None]]:
    """Yield a function that sets the momentum of the moving ranges."""
    momentum, original = [0.999], quant_ops.MovingAvgQuantize

    def with_momentum(*args: Any, **options: Any) -> Any:
        return original(*args, **{**options, "ema_decay": momentum[0]})

    quant_ops.MovingAvgQuantize = with_momentum
    try:
        yield lambda value: momentum.__setitem__(0, value)
    finally:
        quant_ops.MovingAvgQuantize = original


def _is_supported(layer: Any) -> bool:
    """Return whether TFMOT can emulate the layer at its place in the graph."""
    if len(layer.inbound_nodes) != 1 or isinstance(layer, tf_keras.layers.InputLayer):
        return False
    if isinstance(layer, tf_keras.layers.BatchNormalization):
        return _is_folded(layer)
    if not _REGISTRY.supports(layer):
        return False
    try:
        _REGISTRY.get_quantize_config(layer).get_output_quantizers(layer)
    except ValueError:  # an unsupported activation
        return False
    return True


def _is_folded(normalization: Any) -> bool:
    """Return whether the converter folds it into the convolution before it, as TFMOT assumes."""
    before = normalization.inbound_nodes[0].inbound_layers
    kinds = (tf_keras.layers.Conv2D, tf_keras.layers.DepthwiseConv2D, tf_keras.layers.Dense)
    return (
        type(before) in kinds
        and len(before.inbound_nodes) == len(before.outbound_nodes) == 1
        and before.activation is tf_keras.activations.linear
    )


def _unwrap(twin: Any, plain: tf_keras.Model) -> tf_keras.Model:
    """Copy the weights of `twin` to `plain`, since TFMOT cannot strip these wrappers."""
    weights: dict[str, Any] = {}
    for layer in twin.layers:
        inner = getattr(layer, "layer", None)
        if inner is None:
            weights[layer.name] = layer.get_weights()
        else:  # the wrapper holds the kernel of its layer
            both = [*inner.weights, *layer.trainable_weights]
            weights[inner.name] = {_last_name(weight): weight for weight in both}
    for name, layer in leaves(plain):
        values = weights[name]
        if isinstance(values, dict):
            values = [values[_last_name(weight)].numpy() for weight in layer.weights]
        layer.set_weights(values)
    return plain


def _last_name(weight: Any) -> str:
    return weight.name.rpartition("/")[-1]


def _refuse_nested_models(model: Any) -> None:
    nested = [layer.name for layer in getattr(model, "layers", []) if isinstance(layer, CONTAINERS)]
    if nested:
        raise SparsityError(
            f"{model.name!r} contains nested models: {', '.join(nested)}",
            expected="a model of layers, since TFMOT quantizes no nested models",
            fix="flatten it with kpipe.prune: remove_filters(model, plan(model, {}))",
        )
