"""The batches of a training by TFMOT, checked before the first step.

batch := (images (batch, height, width, 3), labels[, weights (batch,)])
labels := integers (batch,) or class fractions, float32 (batch, classes)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import tensorflow as tf
import tf_keras

from kpipe.errors import SparsityError
from kpipe.sparsity.tfmot.training_settings import TrainingSettings

__all__ = ["Batches", "batches_from", "loss_name"]

Batches: TypeAlias = Callable[[int], tf.data.Dataset] | tf.data.Dataset


def batches_from(
    data: Batches, epoch: int, steps_per_epoch: int, model: tf_keras.Model
) -> tf.data.Dataset:
    """Return endless batches for a model, from an epoch on."""
    batches = data(epoch) if callable(data) else data
    spec = getattr(batches, "element_spec", None)
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise SparsityError(
            "the data is not a dataset of images and labels",
            expected="a tf.data.Dataset of (images, labels) or (images, labels, weights), or a "
            "function of the epoch that returns one",
            received=type(batches).__name__ if spec is None else f"batches of {spec}",
            fix="tf.data.Dataset.from_tensor_slices((images, labels)).batch(32)",
        )
    _check_shapes(spec, model)
    if batches.cardinality() == 0:
        raise SparsityError(
            "the data has no batch",
            expected="a tf.data.Dataset of (images, labels)",
            fix="find out where it became empty: len(list(dataset))",
        )
    return batches if callable(data) else batches.repeat().skip(epoch * steps_per_epoch)


def loss_name(batches: tf.data.Dataset, settings: TrainingSettings) -> str:
    """Return the name of the cross-entropy for the labels."""
    if not batches.element_spec[1].dtype.is_floating:
        return "sparse_categorical_crossentropy"
    if settings.class_weight:
        raise SparsityError(
            "class_weight needs integer labels; these are class fractions",
            fix="give each photo its weight, as the third item of the dataset",
        )
    return "categorical_crossentropy"


def _check_shapes(spec: Any, model: tf_keras.Model) -> None:
    """Refuse batches that do not fit the model, as far as their shapes are known."""
    images, labels = spec[:2]
    if not isinstance(images, tf.TensorSpec):  # of a model of several inputs
        return
    several = any(isinstance(s, list | dict) for s in (model.input_shape, model.output_shape))
    classes = None if several else model.output_shape[-1]
    integers = [tf.TensorShape([None]), tf.TensorShape([None, 1])]
    fractions = [tf.TensorShape([None, classes])]
    shapes = integers if labels.dtype.is_integer or labels.dtype.is_bool else fractions
    if (
        several
        or len(model.output_shape) != 2
        or not images.shape.is_compatible_with(model.input_shape)
        or not any(map(labels.shape.is_compatible_with, shapes))
    ):
        raise SparsityError(
            "the batches do not fit the model",
            expected=f"images {model.input_shape}, and labels: integers (batch,), or class "
            f"fractions, float32 (batch, {classes})",
            received=f"images {images.shape}, labels {labels.dtype.name} {labels.shape}",
            fix="batch the dataset, and resize the images",
        )
