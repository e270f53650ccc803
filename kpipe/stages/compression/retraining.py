"""Retraining of a network that has lost filters or weights, as the student of a teacher.

loss := of the labels + soft_target_weight * of the teacher's outputs
                      + feature_weight * of the whole network's features
                                                                  (see `kpipe.train.Distiller`)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kpipe.stages.compression.teachers import Teacher
from kpipe.stages.photos.photo_dataset import PhotoDataset
from kpipe.stages.training.training_run import TrainingRun

if TYPE_CHECKING:
    import keras

__all__ = ["Lesson", "retrain", "retraining_rate", "unfreeze_but_normalization"]


@dataclasses.dataclass(frozen=True)
class Lesson:
    """What a network is retrained on besides the labels.

    Attributes:
        teacher: its predictions are soft targets; None for labels alone.
        whole: the network before the removal, whose features are compared. An ensemble as teacher
            has none, since the features of its members differ.
        soft_target_weight: weight of the soft targets relative to the labels.
        feature_weight: weight of the features.
    """

    teacher: Teacher | None
    whole: keras.Model
    soft_target_weight: float
    feature_weight: float


def retrain(
    model: keras.Model,
    lesson: Lesson,
    photos: PhotoDataset,
    run: TrainingRun,
    *,
    epochs: int,
    learning_rate: float,
    optimizer: str = "adam",
    warmup: float = 0.0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Train a model in place; the learning rate falls along a cosine."""
    from kpipe.train import CosineDecay, Distiller, TrainingConfig

    student = model
    weights = lesson.soft_target_weight, lesson.feature_weight
    if lesson.teacher is not None and any(weights):
        student = Distiller(
            model,
            lesson.teacher.model,
            photos.sample(),
            feature_teacher=lesson.whole,
            soft_target_weight=weights[0],
            feature_weight=weights[1],
        )
    config = TrainingConfig(
        epochs=epochs,
        optimizer=optimizer,
        learning_rate=learning_rate,
        schedule=CosineDecay(warmup),
        class_weight=photos.fit_class_weight,
    )
    run.folder.mkdir(exist_ok=True)
    run.fit(student, photos, config, callbacks)


def retraining_rate(model: keras.Model, declared: float | None, frozen: float = 1e-4) -> float:
    """Return the declared learning rate, or the one that suits the network.

    Adam at 5e-4 destroys a pretrained network whose normalization is frozen: docs/evidence.md.

    Args:
        model: the network to retrain.
        declared: the rate of the declaration; None chooses.
        frozen: the rate for a network of which a normalization is frozen.
    """
    if declared is not None:
        return declared
    return frozen if _frozen_normalizations(model) else 5e-4


def unfreeze_but_normalization(model: keras.Model) -> None:
    """Make all layers trainable except the BatchNormalizations that were frozen.

    Their moving means and variances come from the many photos of the pretraining. Training would
    normalize by the batch instead, which cost an unpruned EfficientNetLite0 12 points.
    """
    from kpipe.train import unfreeze

    frozen = _frozen_normalizations(model)
    unfreeze(model)
    for layer in frozen:
        layer.trainable = False


def _frozen_normalizations(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    import keras

    from kpipe.keras_internals import layers_within

    return [
        layer
        for layer in layers_within(model)
        if isinstance(layer, keras.layers.BatchNormalization) and not layer.trainable
    ]
