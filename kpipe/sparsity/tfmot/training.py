"""Training of a tf_keras model that TFMOT has wrapped, for zeros, clusters and quantization alike.

    Keras 3 model -> to_tf_keras -> wrap_layers -> train -> TFMOT strips its wrappers -> to_keras

A training that is interrupted and resumed ends with the same weights; see `checkpoints`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
import tf_keras

from kpipe.class_indices import complete_class_weights, translate_label_errors
from kpipe.errors import SparsityError
from kpipe.finite_weights import refuse_non_finite_weights
from kpipe.resume_identity import claim
from kpipe.sparsity.bridge.twins import fuse_normalizations
from kpipe.sparsity.tfmot.batches import Batches, batches_from, loss_name
from kpipe.sparsity.tfmot.checkpoints import Saver, training_identity
from kpipe.sparsity.tfmot.training_settings import TrainingJob

__all__ = ["RestoreZeros", "train"]

_ACCURACY = {
    "sparse_categorical_crossentropy": tf_keras.metrics.SparseCategoricalAccuracy,
    "categorical_crossentropy": tf_keras.metrics.CategoricalAccuracy,
}


def train(
    twin: tf_keras.Model,
    data: Batches,
    job: TrainingJob,
    *,
    source: keras.Model,
    method: Mapping[str, Any],
    callbacks: Iterable[Any] = (),
    prepare: Callable[[tf.data.Dataset], None] | None = None,
) -> None:
    """Train `twin` in place, from the last checkpoint in the job's folder on.

    Args:
        twin: the wrapped tf_keras model.
        data: see `prune_magnitude`.
        job: how long and how to train, and where to store checkpoints.
        source: the Keras 3 model that it was built from; checkpoints of another one are refused.
        method: the arguments of the pruning, clustering or quantization, as plain values;
            checkpoints of another method are refused.
        callbacks: further tf_keras callbacks.
        prepare: called with the batches before the first step, not when training resumes.
    """
    settings, steps = job.settings, job.steps_per_epoch
    fuse_normalizations(twin, True)
    refuse_non_finite_weights(source, SparsityError)
    classes = twin.output_shape[-1]
    class_weight = complete_class_weights(settings.class_weight, classes, SparsityError)
    twin.compile(optimizer=job.optimizer())
    twin.optimizer.build(twin.trainable_variables)
    saver = Saver(twin, job.folder)
    if job.folder is not None:
        identity = training_identity(source, method, job)
        claim(Path(job.folder, "training.json"), identity, "another training", error=SparsityError)
    done = saver.restore() // steps
    if done == job.epochs:
        return
    if done == 0 and prepare is not None:
        prepare(batches_from(data, 0, steps, twin))
    batches = batches_from(data, done, steps, twin)
    loss = loss_name(batches, settings)
    # An object: Keras would create a named metric in the first step, and trace the step twice.
    accuracy = _ACCURACY[loss]("accuracy")
    twin.compile(optimizer=twin.optimizer, loss=loss, metrics=[accuracy])
    with translate_label_errors(classes, SparsityError):
        twin.fit(
            batches,
            initial_epoch=done,
            epochs=job.epochs,
            steps_per_epoch=steps,
            class_weight=class_weight,
            callbacks=[*callbacks, _EpochEnd(saver, settings.on_epoch, steps)],
            verbose=0,
        )


class RestoreZeros(tf_keras.callbacks.Callback):
    """Sets zeros that the optimizer has moved back to zero after each step."""

    def __init__(self, model: tf_keras.Model) -> None:
        super().__init__()
        kernels = [weight for weight in model.trainable_variables if "kernel" in weight.name]
        masks = [(kernel, tf.cast(kernel != 0, kernel.dtype)) for kernel in kernels]
        self._masks = [(kernel, mask) for kernel, mask in masks if not tf.reduce_all(mask == 1)]

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        for kernel, mask in self._masks:
            kernel.assign(kernel * mask)


class _EpochEnd(tf_keras.callbacks.Callback):
    """Saves and reports each epoch; stops at a loss that is not finite or at missing data."""

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
                fix="lower learning_rate, and check the labels and images",
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        # The optimizer's count would include the step that found no batch.
        if self._batches != self._steps_per_epoch:
            raise SparsityError(
                f"the data ended in epoch {epoch}",
                expected=f"{self._steps_per_epoch} batches in each epoch",
                received=f"{self._batches}",
                fix="pass a dataset that repeats without end",
            )
        self._saver.save()
        if self._on_epoch is not None:
            self._on_epoch(epoch, {name: float(value) for name, value in (logs or {}).items()})
