"""One `model.fit` that can be killed at any moment and called again.

    fit := compile, [restore the newest checkpoint], model.fit from the next epoch on, best weights

`data` is a function of the first epoch, so that a resumed training sees the very batches that an
uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kpipe.errors import TrainingError
from kpipe.labels import complete_class_weights, translate_label_errors
from kpipe.train.loop import checkpoint
from kpipe.train.loop.checkpointer import Checkpointer
from kpipe.train.loop.fused_batch_norm import fused_normalization
from kpipe.train.loop.non_finite import BatchReader, TerminateOnNonFinite
from kpipe.train.loop.training_config import TrainingConfig
from kpipe.train.loop.weight_averaging import AveragedWeights
from kpipe.train.optimizers.switching import SwitchOptimizer

__all__ = ["FitResult", "fit"]

_ACCURACY = {
    "sparse_categorical_crossentropy": keras.metrics.SparseCategoricalAccuracy,
    "categorical_crossentropy": keras.metrics.CategoricalAccuracy,
}


@dataclass(frozen=True)
class FitResult:
    """What a training did; the model itself holds the weights of the best epoch.

    Args:
        history: name -> one value per epoch, from the first epoch on, resumed or not.
        best_epoch: the epoch with the lowest "val_loss"; the last one without validation.
        switched_at: the first epoch with the second optimizer, or None.
        resumed_at: the epoch at which this call went on, 0 where it started anew.
    """

    history: dict[str, list[float]]
    best_epoch: int
    switched_at: int | None
    resumed_at: int


def fit(
    model: keras.Model,
    data: Callable[[int], tf.data.Dataset],
    *,
    steps_per_epoch: int,
    plan: TrainingConfig,
    validation: tf.data.Dataset | None = None,
    folder: str | Path | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    batch_names: Callable[[int, int], Sequence[str]] | None = None,
) -> FitResult:
    """Trains a softmax classifier in place, and leaves the weights of its best epoch in it.

    The best epoch has the lowest "val_loss", the earlier of two equal ones; without validation it
    is the last. Only weights are taken from it: the optimizer stays as the last epoch left it.

    With a folder, each epoch ends in a checkpoint. Called again with the same folder and a model
    built in the same way, a training goes on after its last finished epoch, with its optimizer,
    its random seeds and its callbacks as they were, and ends with the same weights, bit for bit,
    as one that was never interrupted. Called again when finished, it restores the result at once.
    Normalizations train as one operation each (`fused_normalization`).
    Callbacks with a state of their own resume if they are `StatefulCallback`s, or Keras'
    EarlyStopping or ReduceLROnPlateau.

    Args:
        model: ends in probabilities `(batch, classes)`.
        data: first epoch -> an endless dataset from that epoch on, of images
            `(batch, height, width, 3)` float32 in [0, 255] and labels: integers `(batch,)`, or
            shares of the classes, float32 `(batch, classes)`, as mixed photos have them. A third
            item weighs each example, float32 `(batch,)`.
        steps_per_epoch: batches in an epoch.
        plan: how to train.
        validation: a finite dataset with labels of the same kind.
        folder: where checkpoints go; None for none.
        callbacks: Keras callbacks, called as in `model.fit`.
        batch_names: epoch, batch -> the names of its photos, for an error about that batch.

    Raises:
        TrainingError: labels of another kind, labels or class weights that the model has no answer
            for, the folder belongs to another training, or the loss is no longer a number: the last
            checkpoint is kept, and the batch that made it so as `refused-batch.npz`.
        OSError: a checkpoint could not be written; the previous one is kept.
    """
    if steps_per_epoch < 1:
        raise TrainingError("an epoch needs batches", received=f"steps_per_epoch={steps_per_epoch}")
    monitor = getattr(plan.switch_when, "monitor", "")
    if validation is None and monitor.startswith("val_"):
        raise TrainingError(
            f"the switch watches {monitor!r}, and there is no validation data",
            fix='give validation data, or OnPlateau("loss")',
        )
    switch = _switch(plan, steps_per_epoch)
    shape = getattr(model, "output_shape", None)  # a subclassed model has none
    classes = shape[-1] if shape else None
    class_weight = complete_class_weights(plan.class_weight, classes, TrainingError)
    watched = [*([switch] if switch else []), *_declared(plan, validation), *callbacks]
    keeper = Checkpointer(_identity(model, plan, steps_per_epoch), folder, watched)
    found = keeper.resume()
    start = found.epoch + 1 if found is not None else 0
    batches = data(start)
    if batches.cardinality() >= 0:
        raise TrainingError(
            "the training data ends",
            expected="an endless dataset, from which an epoch takes steps_per_epoch batches",
            received=f"{int(batches.cardinality())} batches",
            fix="call .repeat() on it",
        )
    loss = _loss(batches, validation, plan)
    if plan.label_smoothing and loss == "sparse_categorical_crossentropy":
        # Only labels that are shares can be smoothed.
        batches = _as_shares(batches, classes)
        validation = _as_shares(validation, classes) if validation is not None else None
        loss = "categorical_crossentropy"
    # An object: of a name Keras makes one while it traces the first step, which may make no
    # variables, so that TensorFlow traces it once more.
    accuracy = _ACCURACY[loss]("accuracy")
    if plan.label_smoothing:
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=plan.label_smoothing)
    optimizer = found.new_optimizer() if found else plan.first_optimizer(steps_per_epoch)
    model.compile(optimizer, loss, metrics=[accuracy])
    model.optimizer.build(model.trainable_variables)
    if found is not None:
        checkpoint.restore(model.variables, found.model, "model")
        checkpoint.restore(model.optimizer.variables, found.optimizer, "optimizer")
    if start < plan.epochs and not keeper.stopped:
        finite = TerminateOnNonFinite(
            BatchReader(data, batch_names, keeper.folder), steps_per_epoch
        )
        with fused_normalization(model), translate_label_errors(classes, TrainingError):
            model.fit(
                batches,
                initial_epoch=start,
                epochs=plan.epochs,
                steps_per_epoch=steps_per_epoch,
                validation_data=validation,
                class_weight=class_weight,
                callbacks=[finite, *watched, keeper],
                shuffle=False,  # the order is that of `data`
                verbose=0,
            )
    keeper.restore_best(model)
    return FitResult(
        history=keeper.history,
        best_epoch=keeper.best_epoch,
        switched_at=switch.switched_at if switch else None,
        resumed_at=start,
    )


def _declared(
    plan: TrainingConfig, validation: tf.data.Dataset | None
) -> list[keras.callbacks.Callback]:
    """The callbacks that the plan asks for; those with a state resume with the training."""
    monitor = "loss" if validation is None else "val_loss"
    declared = plan.schedule_callbacks(monitor)
    if plan.ema_momentum is not None:
        declared.append(AveragedWeights())
    if plan.patience is not None:
        declared.append(keras.callbacks.EarlyStopping(monitor, patience=plan.patience, mode="min"))
    return declared


def _as_shares(batches: tf.data.Dataset, classes: int | None) -> tf.data.Dataset:
    """The same batches, labels as float32 (batch, classes)."""
    if classes is None:
        raise TrainingError(
            "label_smoothing needs to know how many classes there are",
            expected="a functional or Sequential model",
            fix="give labels that are shares of the classes, (batch, classes)",
        )
    whole = tf.eye(classes)  # looked up, since one_hot makes zeros of a label that is none
    return batches.map(
        lambda images, labels, *rest: (images, tf.gather(whole, tf.cast(labels, "int32")), *rest)
    )


def _switch(plan: TrainingConfig, steps_per_epoch: int) -> SwitchOptimizer | None:
    if plan.switch_when is None:
        return None
    return SwitchOptimizer(
        lambda epoch, **chosen: plan.second_optimizer(epoch, steps_per_epoch, **chosen),
        plan.switch_when,
    )


def _loss(
    batches: tf.data.Dataset, validation: tf.data.Dataset | None, plan: TrainingConfig
) -> Any:
    loss = _loss_of("training", batches)
    if plan.class_weight and loss == "categorical_crossentropy":
        # Keras would take the weight of the largest share for the whole photo.
        raise TrainingError(
            "class_weight is for whole labels, and these are shares of the classes",
            fix="dataset(..., training=Training(class_weight=...)) gives each photo its weight",
        )
    if validation is not None and (other := _loss_of("validation", validation)) != loss:
        raise TrainingError(
            "the validation data has labels of another kind than the training data",
            expected=f"labels for {loss}, as in training",
            received=f"labels for {other}",
            fix="dataset(..., one_hot=True) gives labels float32 (batch, classes)",
        )
    return loss


def _loss_of(name: str, batches: tf.data.Dataset) -> str:
    """The cross-entropy that fits the labels."""
    spec = batches.element_spec
    labels = spec[1] if isinstance(spec, tuple) and len(spec) > 1 else None
    if labels is not None and labels.dtype.is_integer and labels.shape.rank in (1, None):
        return "sparse_categorical_crossentropy"
    if labels is not None and labels.dtype.is_floating and labels.shape.rank in (2, None):
        return "categorical_crossentropy"
    raise TrainingError(
        f"the {name} data has no labels to learn from",
        expected="integers (batch,), or shares of the classes, float (batch, classes)",
        received="no labels" if labels is None else f"{labels.dtype.name} {labels.shape}",
    )


def _identity(model: keras.Model, plan: TrainingConfig, steps_per_epoch: int) -> dict[str, str]:
    """What must be the same when a training is taken up again."""
    trained = {id(v) for v in model.trainable_variables}
    shapes = [f"{tuple(v.shape)}{'*' if id(v) in trained else ''}" for v in model.weights]
    return {"plan": repr(plan), "steps_per_epoch": str(steps_per_epoch), "model": " ".join(shapes)}
