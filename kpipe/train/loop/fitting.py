"""One training run that resumes from its checkpoints after it was killed.

fit := compile, [restore the newest checkpoint], model.fit from the next epoch on, best weights
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kpipe.class_indices import complete_class_weights, translate_label_errors
from kpipe.errors import TrainingError
from kpipe.keras_copies import copy_state
from kpipe.train.batch_checks import refuse_unfit_batches
from kpipe.train.loop import checkpoint
from kpipe.train.loop.checkpointer import Checkpointer
from kpipe.train.loop.ema_validation import EMAValidation
from kpipe.train.loop.fused_batch_norm import fused_normalization
from kpipe.train.loop.non_finite import FailedBatch, TerminateOnNonFinite
from kpipe.train.loop.training_config import TrainingConfig
from kpipe.train.optimizers.switching import SwitchOptimizer
from kpipe.train.training_data import TrainingData
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["FitResult", "fit"]

_ACCURACY = {
    "sparse_categorical_crossentropy": keras.metrics.SparseCategoricalAccuracy,
    "categorical_crossentropy": keras.metrics.CategoricalAccuracy,
}


@dataclass(frozen=True)
class FitResult:
    """The result of a training run; the model holds the weights of the best epoch.

    Args:
        history: one value per epoch for each name, from the first epoch on even if resumed.
        best_epoch: the epoch with the lowest "val_loss"; without validation the last one.
        switched_at: the first epoch with the second optimizer, or None.
        resumed_at: the first epoch of this call, 0 unless training resumed.

    Example:
        >>> from kpipe.train import FitResult
        >>> result = FitResult({"val_loss": [0.7, 0.4, 0.5]}, 1, switched_at=None, resumed_at=0)
        >>> result.history["val_loss"][result.best_epoch]
        0.4
    """

    history: dict[str, list[float]]
    best_epoch: int
    switched_at: int | None
    resumed_at: int


@names_wrong_kinds
def fit(
    model: keras.Model,
    data: TrainingData,
    config: TrainingConfig,
    *,
    folder: str | Path | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> FitResult:
    """Train a softmax classifier in place, and restore the weights of its best epoch.

    The best epoch has the lowest "val_loss", the earlier of two equal ones; without validation it
    is the last. Only weights are restored: the optimizer keeps the state of the last epoch.

    With a folder, each epoch ends with a checkpoint. If training is interrupted, call `fit` again
    with the same folder and a model built in the same way. Training resumes after the last finished
    epoch with the optimizer, random seeds and callbacks restored, and ends with the same weights,
    bit for bit, as without the interruption. After the last epoch, a further call restores the
    result. `StatefulCallback`s and Keras' EarlyStopping, ReduceLROnPlateau and ModelCheckpoint
    resume with their state. BatchNormalization runs as in `fused_normalization`.

    Args:
        model: ends in probabilities `(batch, classes)`.
        data: what to train and validate on.
        config: how to train.
        folder: of the checkpoints; None for none.
        callbacks: Keras callbacks, called as in `model.fit`.

    Raises:
        TrainingError: images or labels that do not fit the model, labels or class weights of
            classes that it does not have, a folder of another training run, or a loss that became
            NaN or infinite. Then the folder holds the last checkpoint, and the batch at fault as
            `refused-batch.npz`.
        OSError: a checkpoint could not be written; the previous one is kept.

    Example:
        >>> import keras
        >>> from kpipe.data import dataset, from_folder, split, steps
        >>> from kpipe.train import TrainingConfig, TrainingData, fit
        >>> photos = split(from_folder("photos"))
        >>> batches = dataset(photos, "train", image_size=32, batch_size=8)
        >>> data = TrainingData(lambda epoch: batches.repeat(), steps(photos, "train", 8))
        >>> model = keras.Sequential([
        ...     keras.Input((32, 32, 3)),
        ...     keras.layers.Conv2D(4, 3, strides=2),
        ...     keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(3, activation="softmax"),
        ... ])
        >>> result = fit(model, data, TrainingConfig(epochs=1), folder="training")
        >>> result.best_epoch, sorted(result.history)
        (0, ['accuracy', 'loss'])
    """
    monitor = getattr(config.switch_when, "monitor", "")
    if data.validation is None and monitor.startswith("val_"):
        raise TrainingError(
            f"the switch monitors {monitor!r}, but there is no validation data",
            fix='pass validation data, or use OnPlateau("loss")',
        )
    switch = _switch(config, data.steps_per_epoch)
    shape = getattr(model, "output_shape", None)  # subclassed models have none
    classes = shape[-1] if shape else None
    class_weight = complete_class_weights(config.class_weight, classes, TrainingError)
    all_callbacks = [*([switch] if switch else []), *_config_callbacks(config, data), *callbacks]
    checkpointer = Checkpointer(
        _identity(model, config, data.steps_per_epoch), folder, all_callbacks
    )
    found = checkpointer.resume()
    start = found.epoch + 1 if found is not None else 0
    batches, validation = data.batches(start), data.validation
    if batches.cardinality() >= 0:
        raise TrainingError(
            "the training data ends",
            expected="an endless dataset, from which an epoch takes steps_per_epoch batches",
            received=f"{int(batches.cardinality())} batches",
            fix="call .repeat() on it",
        )
    loss = _loss(batches, validation, config)
    for given in (batches, validation):
        if given is not None:
            refuse_unfit_batches(model, given)
    if config.label_smoothing and loss == "sparse_categorical_crossentropy":
        batches = _one_hot(batches, classes)
        validation = _one_hot(validation, classes) if validation is not None else None
        loss = "categorical_crossentropy"
    # Pass a metric object: given a name, Keras creates the metric while it traces the first step,
    # and TensorFlow traces the step again for its variables.
    accuracy = _ACCURACY[loss]("accuracy")
    if config.label_smoothing:
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing)
    optimizer = found.new_optimizer() if found else config.first_optimizer(data.steps_per_epoch)
    model.compile(optimizer, loss, metrics=[accuracy])
    model.optimizer.build(model.trainable_variables)
    if found is not None:
        checkpoint.restore(model.variables, found.model, "model")
        copy_state(model, model)  # what layers derive from their weights
        checkpoint.restore(model.optimizer.variables, found.optimizer, "optimizer")
    if start < config.epochs and not checkpointer.stopped:
        finite = TerminateOnNonFinite(FailedBatch(data, checkpointer.folder))
        with fused_normalization(model), translate_label_errors(classes, TrainingError):
            model.fit(
                batches,
                initial_epoch=start,
                epochs=config.epochs,
                steps_per_epoch=data.steps_per_epoch,
                validation_data=validation,
                class_weight=class_weight,
                callbacks=[finite, *all_callbacks, checkpointer],
                shuffle=False,  # `data` determines the order
                verbose=0,
            )
    checkpointer.restore_best(model)
    return FitResult(
        history=checkpointer.history,
        best_epoch=checkpointer.best_epoch,
        switched_at=switch.switched_at if switch else None,
        resumed_at=start,
    )


def _config_callbacks(config: TrainingConfig, data: TrainingData) -> list[keras.callbacks.Callback]:
    monitor = "loss" if data.validation is None else "val_loss"
    callbacks = config.schedule_callbacks(monitor)
    if config.ema_momentum is not None:
        callbacks.append(EMAValidation())
    if config.patience is not None:
        stopping = keras.callbacks.EarlyStopping(monitor, patience=config.patience, mode="min")
        callbacks.append(stopping)
    return callbacks


def _one_hot(batches: tf.data.Dataset, classes: int | None) -> tf.data.Dataset:
    """Convert integer labels to float32 (batch, classes), which can be smoothed."""
    if classes is None:
        raise TrainingError(
            "label_smoothing needs the number of classes, which the model does not declare",
            expected="a functional or Sequential model",
            fix="pass labels float32 (batch, classes)",
        )
    rows = tf.eye(classes)  # gather raises an error for an invalid label, tf.one_hot does not
    return batches.map(
        lambda images, labels, *rest: (images, tf.gather(rows, tf.cast(labels, "int32")), *rest)
    )


def _switch(config: TrainingConfig, steps_per_epoch: int) -> SwitchOptimizer | None:
    if config.switch_when is None:
        return None
    return SwitchOptimizer(
        lambda epoch, **chosen: config.second_optimizer(epoch, steps_per_epoch, **chosen),
        config.switch_when,
    )


def _loss(
    batches: tf.data.Dataset, validation: tf.data.Dataset | None, config: TrainingConfig
) -> Any:
    loss = _loss_of("training", batches)
    if config.class_weight and loss == "categorical_crossentropy":
        # Keras would apply the weight of the class with the largest label to the whole photo.
        raise TrainingError(
            "class_weight needs integer labels, and these are soft labels",
            fix="use dataset(..., training=TrainingOptions(class_weight=...)) to weight each photo",
        )
    if validation is not None and (other := _loss_of("validation", validation)) != loss:
        raise TrainingError(
            "validation and training data have different types of labels",
            expected=f"labels for {loss}, as in training",
            received=f"labels for {other}",
            fix="dataset(..., one_hot=True) returns labels float32 (batch, classes)",
        )
    return loss


def _loss_of(name: str, batches: tf.data.Dataset) -> str:
    """Return the name of the cross-entropy for the labels of a dataset."""
    spec = batches.element_spec
    labels = spec[1] if isinstance(spec, tuple) and len(spec) > 1 else None
    if labels is not None and labels.dtype.is_integer and labels.shape.rank in (1, None):
        return "sparse_categorical_crossentropy"
    if labels is not None and labels.dtype.is_floating and labels.shape.rank in (2, None):
        return "categorical_crossentropy"
    raise TrainingError(
        f"the {name} data has no valid labels",
        expected="integers (batch,), or soft labels, float (batch, classes)",
        received="no labels" if labels is None else f"{labels.dtype.name} {labels.shape}",
    )


def _identity(model: keras.Model, config: TrainingConfig, steps_per_epoch: int) -> dict[str, str]:
    """Return what must not change when a training run resumes."""
    trained = {id(v) for v in model.trainable_variables}
    shapes = [f"{tuple(v.shape)}{'*' if id(v) in trained else ''}" for v in model.weights]
    return {
        "plan": repr(config),
        "steps_per_epoch": str(steps_per_epoch),
        "model": " ".join(shapes),
    }
