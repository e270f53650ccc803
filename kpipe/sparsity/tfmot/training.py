"""Training a tf_keras model that TFMOT has wrapped: the same for zeros, clusters and quantization.

    Keras 3 model -> to_tf_keras -> `wrapped` -> `train` -> TFMOT strips its wrappers -> to_keras

A training that was killed ends with the same weights as one that was not; see `resuming`.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import keras
import tensorflow as tf
import tf_keras

from kpipe.errors import SparsityError
from kpipe.labels import complete_class_weights, translate_label_errors
from kpipe.ownership import claim
from kpipe.sparsity.bridge.twins import fuse_normalizations
from kpipe.sparsity.tf_keras_internals import BaseRandomLayer, layers_within
from kpipe.sparsity.tfmot.checkpoints import Saver, description
from kpipe.sparsity.tfmot.settings import TrainingSettings, optimizer
from kpipe.weights import refuse_non_finite_weights

__all__ = [
    "KERNELS",
    "Batches",
    "ZerosStay",
    "refuse_activity_regularizers",
    "train",
    "wrapped",
]

Batches: TypeAlias = Callable[[int], tf.data.Dataset] | tf.data.Dataset

# Layers whose kernels are worth it. Depthwise ones are few, and hurt most.
KERNELS = (tf_keras.layers.Conv2D, tf_keras.layers.Dense)

_ACCURACY = {
    "sparse_categorical_crossentropy": tf_keras.metrics.SparseCategoricalAccuracy,
    "categorical_crossentropy": tf_keras.metrics.CategoricalAccuracy,
}


def wrapped(
    model: tf_keras.Model, wrap: Callable[[Any], Any | None], seed: int
) -> tuple[tf_keras.Model, list[str]]:
    """The model with some layers wrapped and draws that can be restored.

    Args:
        model: of tf_keras; models inside are looked into.
        wrap: gives what takes the place of a layer, None to leave the layer as it is.
        seed: of the layers that draw.

    Returns:
        The new model, and the paths of the wrapped layers.
    """
    paths: list[str] = []
    seeds = itertools.count(seed)
    made: dict[int, Any] = {}

    def replaced(layer: Any, prefix: str) -> Any:
        if id(layer) not in made:  # one for all models inside that share it
            made[id(layer)] = _replaced(layer, prefix)
        return made[id(layer)]

    def _replaced(layer: Any, prefix: str) -> Any:
        if isinstance(layer, tf_keras.Model):
            return inside(layer, f"{prefix}{layer.name}/")
        if isinstance(layer, BaseRandomLayer):
            draws = {"seed": next(seeds), "rng_type": "stateful"}
            return type(layer).from_config({**layer.get_config(), **draws})
        if any(
            isinstance(part, BaseRandomLayer) and getattr(part, "rate", 1)
            for part in layers_within(layer)
        ):
            raise SparsityError(
                f"{prefix}{layer.name} drops out inside, from draws that no checkpoint can hold",
                fix="build it without dropout, and put a Dropout layer behind it",
            )
        if (other := wrap(layer)) is None:
            return layer
        refuse_activity_regularizers([layer])
        paths.append(prefix + layer.name)
        return other

    def inside(container: Any, prefix: str) -> Any:
        return tf_keras.models.clone_model(
            container, clone_function=lambda layer: replaced(layer, prefix)
        )

    return inside(model, ""), paths


def refuse_activity_regularizers(layers: Iterable[Any]) -> None:
    """TFMOT's wrappers lose the loss that a layer adds."""
    wrong = [layer.name for layer in layers if getattr(layer, "activity_regularizer", None)]
    if wrong:
        raise SparsityError(
            f"layers that regularize their outputs cannot be wrapped: {', '.join(wrong)}",
            expected="layers without activity_regularizer",
            fix="build the model without it, and give it the weights",
        )


def train(
    twin: tf_keras.Model,
    data: Batches,
    *,
    epochs: int,
    steps_per_epoch: int,
    settings: TrainingSettings,
    folder: str | os.PathLike[str] | None,
    source: keras.Model,
    what: Mapping[str, Any],
    callbacks: Iterable[Any] = (),
    prepare: Callable[[tf.data.Dataset], None] | None = None,
) -> None:
    """Train `twin` in place, from the last checkpoint in the folder on.

    Args:
        twin: what TFMOT has wrapped.
        data: see `prune_magnitude`.
        epochs: how many.
        steps_per_epoch: batches in each.
        settings: how to train.
        folder: keeps a checkpoint after each epoch; None keeps none.
        source: the Keras 3 model it came from, of which the weights tell trainings apart.
        what: is done to it; another folder is asked for where it differs.
        callbacks: of tf_keras, besides.
        prepare: called with the batches before the first step; a training that goes on has been
            prepared.
    """
    fuse_normalizations(twin, True)
    refuse_non_finite_weights(source, SparsityError)
    classes = twin.output_shape[-1]
    class_weight = complete_class_weights(settings.class_weight, classes, SparsityError)
    twin.compile(optimizer=optimizer(settings, epochs * steps_per_epoch))
    twin.optimizer.build(twin.trainable_variables)
    saver = Saver(twin, folder)
    if folder is not None:
        identity = description(source, what, epochs, steps_per_epoch, settings)
        claim(Path(folder, "training.json"), identity, "another training", error=SparsityError)
    done = saver.restore() // steps_per_epoch
    if done == epochs:
        return
    if done == 0 and prepare is not None:
        prepare(_from(data, 0, steps_per_epoch, twin))
    batches = _from(data, done, steps_per_epoch, twin)
    loss = _loss(batches, settings)
    # An object: of a name one is made in the first step, which is traced twice then.
    accuracy = _ACCURACY[loss]("accuracy")
    twin.compile(optimizer=twin.optimizer, loss=loss, metrics=[accuracy])
    with translate_label_errors(classes, SparsityError):
        twin.fit(
            batches,
            initial_epoch=done,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
            class_weight=class_weight,
            callbacks=[*callbacks, _Watch(saver, settings.on_epoch, steps_per_epoch)],
            verbose=0,
        )


def _check_shapes(spec: Any, model: tf_keras.Model) -> None:
    """Refuses batches that the model cannot take, as far as the dataset says their shapes."""
    if isinstance(model.input_shape, (list, dict)):
        return
    images, labels = spec[:2]
    wide = model.output_shape[-1]
    shares = tf.TensorShape([None, wide])
    classes = [tf.TensorShape([None]), tf.TensorShape([None, 1])]
    fits = images.shape.is_compatible_with(model.input_shape)
    whole = labels.dtype.is_integer or labels.dtype.is_bool
    known = any(map(labels.shape.is_compatible_with, classes if whole else [shares]))
    if not fits or not known:
        raise SparsityError(
            "the batches do not fit the model",
            expected=f"images {model.input_shape}, and labels: integers (batch,), or shares of the "
            f"classes, float32 (batch, {wide})",
            received=f"images {images.shape}, labels {labels.dtype.name} {labels.shape}",
            fix="batch the dataset, and resize the images",
        )


def _from(
    data: Batches, epoch: int, steps_per_epoch: int, model: tf_keras.Model
) -> tf.data.Dataset:
    """Batches from an epoch on, without end."""
    batches = data(epoch) if callable(data) else data
    spec = getattr(batches, "element_spec", None)
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise SparsityError(
            "the data are no dataset of images and labels",
            expected="a tf.data.Dataset of (images, labels) or (images, labels, weights), or a "
            "function of the epoch that gives one",
            received=type(batches).__name__ if spec is None else f"batches of {spec}",
            fix="tf.data.Dataset.from_tensor_slices((images, labels)).batch(32)",
        )
    _check_shapes(spec, model)
    if batches.cardinality() == 0:
        raise SparsityError(
            "the data hold no batch",
            expected="a tf.data.Dataset of (images, labels)",
            fix="look where it became empty: len(list(dataset))",
        )
    return batches if callable(data) else batches.repeat().skip(epoch * steps_per_epoch)


class ZerosStay(tf_keras.callbacks.Callback):
    """Sets zeros back that the optimizer has moved, before the next step can see it."""

    def __init__(self, model: tf_keras.Model) -> None:
        super().__init__()
        kernels = [weight for weight in model.trainable_variables if "kernel" in weight.name]
        masks = [(kernel, tf.cast(kernel != 0, kernel.dtype)) for kernel in kernels]
        self._masks = [(kernel, mask) for kernel, mask in masks if not tf.reduce_all(mask == 1)]

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        for kernel, mask in self._masks:
            kernel.assign(kernel * mask)


class _Watch(tf_keras.callbacks.Callback):
    """Stops at a loss that is not finite or data that ends; saves and reports each epoch."""

    def __init__(
        self,
        saver: Saver,
        on_epoch: Callable[[int, dict[str, float]], None] | None,
        steps_per_epoch: int,
    ) -> None:
        super().__init__()
        self._saver = saver
        self._on_epoch = on_epoch
        self._steps_per_epoch = steps_per_epoch
        self._batches = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._batches = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._batches += 1
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise SparsityError(
                f"the loss became {loss} at step {int(self._saver.optimizer.iterations)}",
                fix="lower learning_rate, and check that labels and images are right",
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        # Not the optimizer's count, which also counts the step that found no batch.
        if self._batches != self._steps_per_epoch:
            raise SparsityError(
                f"the data ended in epoch {epoch}",
                expected=f"{self._steps_per_epoch} batches in each epoch",
                received=f"{self._batches}",
                fix="give a dataset that repeats without end",
            )
        self._saver.save()
        if self._on_epoch is not None:
            self._on_epoch(epoch, {name: float(value) for name, value in (logs or {}).items()})


def _loss(batches: tf.data.Dataset, settings: TrainingSettings) -> str:
    """The cross-entropy that fits the labels."""
    if not batches.element_spec[1].dtype.is_floating:
        return "sparse_categorical_crossentropy"
    if settings.class_weight:
        raise SparsityError(
            "class_weight is for whole labels, and these are shares of the classes",
            fix="give each photo its weight, as the third item of the dataset",
        )
    return "categorical_crossentropy"
