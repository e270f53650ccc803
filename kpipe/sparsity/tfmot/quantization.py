"""Quantization-aware training by TFMOT: the network learns weights that survive int8.

    forward   weights and activations rounded to 8 bits and back, ranges as they are met
    backward  as if nothing had been rounded                     (Jacob et al. 2018,
                                                                  arXiv:1712.05877, section 3)

What comes back is an ordinary model with such weights, which is quantized like any other: the
ranges of its activations are measured when it is converted, as for one trained without.
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
from kpipe.sparsity.tf_keras_internals import layers_within
from kpipe.sparsity.tfmot.loading import int8_registry, quant_ops, tfmot
from kpipe.sparsity.tfmot.settings import TrainingSettings, check_training
from kpipe.sparsity.tfmot.training import (
    Batches,
    ZerosStay,
    refuse_activity_regularizers,
    train,
    wrapped,
)

__all__ = ["train_quantized"]

_REGISTRY = int8_registry.Default8BitQuantizeRegistry()
_DEFAULTS = TrainingSettings(learning_rate=1e-5)
_RANGE_BATCHES = 8


def train_quantized(
    model: keras.Model,
    data: Batches,
    *,
    epochs: int,
    steps_per_epoch: int,
    settings: TrainingSettings = _DEFAULTS,
    folder: str | os.PathLike[str] | None = None,
) -> keras.Model:
    """Train a classifier that feels what int8 will do to it.

    The rounding is emulated in the layers that TFMOT knows how to quantize: convolutions, depthwise
    ones, Dense, the normalizations that follow them, common activations, pooling, Add and
    Concatenate. The others compute as before. Zeros of magnitude-pruned kernels stay zero.

    Args:
        model: a trained functional or Sequential Keras 3 classifier ending in softmax, without
            models inside. It is not changed.
        data: see `prune_magnitude`.
        epochs: how many.
        steps_per_epoch: batches in each.
        settings: how to train; a small rate, since little has to move.
        folder: keeps a checkpoint after each epoch, and continues from the last one there.

    Returns:
        A Keras 3 model with the same layers and names: `kpipe.lite.convert(model, "int8", ...)`.

    Raises:
        SparsityError: numbers out of range, models inside, nothing to quantize, layers that
            tf_keras does not have, a loss that is not finite, data that ends too soon, or a folder
            of another training.
    """
    check_training(epochs, steps_per_epoch, settings)
    _refuse_models_inside(model)
    plain = to_tf_keras(model)
    refuse_activity_regularizers(plain.layers)
    known = {layer.name for layer in plain.layers if _is_known(layer)}
    if not known:
        raise SparsityError(
            f"nothing in {model.name!r} that TFMOT quantizes",
            expected="a convolution or a Dense layer used once",
        )
    annotate = tfmot.quantization.keras.quantize_annotate_layer
    restorable, _ = wrapped(plain, lambda layer: None, settings.seed)
    annotated = tf_keras.models.clone_model(
        restorable, clone_function=lambda layer: annotate(layer) if layer.name in known else layer
    )
    with tfmot.quantization.keras.quantize_scope({"KerasOperation": KerasOperation}):
        twin = tfmot.quantization.keras.quantize_apply(annotated)
    train(
        twin,
        data,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        settings=settings,
        folder=folder,
        source=model,
        what={"bits": 8},
        callbacks=[ZerosStay(twin)],
        prepare=partial(_measure_ranges, twin),
    )
    return to_keras(_unwrapped(twin, to_tf_keras(model)), template=model)


def _measure_ranges(twin: tf_keras.Model, batches: tf.data.Dataset) -> None:
    """Set the ranges of activations to the means of what some batches give.

    TFMOT begins with -6 to 6 and moves them by a thousandth a step, so that a short training would
    see nothing but clipped activations, and learn statistics of those.
    """
    normalizations = [
        layer
        for layer in layers_within(twin)
        if isinstance(layer, tf_keras.layers.BatchNormalization) and layer.trainable
    ]
    for layer in normalizations:
        layer.trainable = False  # their statistics stay as they are
    with _ranges_moved() as move:
        for number, (images, *_) in enumerate(batches.take(_RANGE_BATCHES)):
            move(number / (number + 1))
            twin(images, training=True)
    for layer in normalizations:
        layer.trainable = True


@contextmanager
def _ranges_moved() -> Iterator[Callable[[float], None]]:
    """Gives a function that sets how much of the old range each call keeps."""
    kept, given = [0.999], quant_ops.MovingAvgQuantize

    def moved(*args: Any, **settings: Any) -> Any:
        return given(*args, **{**settings, "ema_decay": kept[0]})

    quant_ops.MovingAvgQuantize = moved
    try:
        yield lambda share: kept.__setitem__(0, share)
    finally:
        quant_ops.MovingAvgQuantize = given


def _is_known(layer: Any) -> bool:
    """Whether TFMOT can emulate the layer where it stands."""
    if len(layer.inbound_nodes) != 1 or isinstance(layer, tf_keras.layers.InputLayer):
        return False
    if isinstance(layer, tf_keras.layers.BatchNormalization):
        return _is_folded(layer)
    if not _REGISTRY.supports(layer):
        return False
    try:
        _REGISTRY.get_quantize_config(layer).get_output_quantizers(layer)
    except ValueError:  # an activation that it has not looked at
        return False
    return True


def _is_folded(normalization: Any) -> bool:
    """Whether the converter merges it into the convolution before it, as TFMOT then supposes."""
    before = normalization.inbound_nodes[0].inbound_layers
    kinds = (tf_keras.layers.Conv2D, tf_keras.layers.DepthwiseConv2D, tf_keras.layers.Dense)
    return (
        type(before) in kinds
        and len(before.inbound_nodes) == len(before.outbound_nodes) == 1
        and before.activation is tf_keras.activations.linear
    )


def _unwrapped(twin: Any, plain: tf_keras.Model) -> tf_keras.Model:
    """`plain` with the weights of `twin`; TFMOT has nothing that strips its wrappers."""
    found: dict[str, Any] = {}
    for layer in twin.layers:
        inner = getattr(layer, "layer", None)
        if inner is None:
            found[layer.name] = layer.get_weights()
        else:  # the wrapper has taken the kernel out of its layer
            held = {_last(weight): weight for weight in [*inner.weights, *layer.trainable_weights]}
            found[inner.name] = held
    for name, layer in leaves(plain):
        values = found[name]
        if isinstance(values, dict):
            values = [values[_last(weight)].numpy() for weight in layer.weights]
        layer.set_weights(values)
    return plain


def _last(weight: Any) -> str:
    return weight.name.rpartition("/")[-1]


def _refuse_models_inside(model: Any) -> None:
    inside = [layer.name for layer in getattr(model, "layers", []) if isinstance(layer, CONTAINERS)]
    if inside:
        raise SparsityError(
            f"{model.name!r} holds other models: {', '.join(inside)}",
            expected="a model of layers, since TFMOT quantizes no models inside",
            fix="open it with kpipe.prune: remove_filters(model, plan(model, {}))",
        )
