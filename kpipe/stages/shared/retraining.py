"""Retraining of a network that has lost filters or weights, with the whole network as teacher.

loss := of the labels + soft_target_weight * of the teacher's outputs
                      + feature_weight * of its features            (see `kpipe.train.Distiller`)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kpipe.stages.shared.photo_dataset import PhotoDataset
from kpipe.stages.shared.training_run import TrainingRun

if TYPE_CHECKING:
    import keras

    from kpipe.train import TrainingConfig

__all__ = ["Teacher", "retrain", "unfreeze_but_normalization"]


@dataclasses.dataclass(frozen=True)
class Teacher:
    """The network before the removal, and the loss weights of its outputs and features."""

    model: keras.Model
    soft_target_weight: float
    feature_weight: float


def retrain(
    model: keras.Model,
    teacher: Teacher,
    photos: PhotoDataset,
    config: TrainingConfig,
    run: TrainingRun,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Train a model in place, as the student of a teacher if the teacher has any weight."""
    from kpipe.train import Distiller

    student = model
    if teacher.soft_target_weight or teacher.feature_weight:
        student = Distiller(
            model,
            teacher.model,
            photos.sample(),
            soft_target_weight=teacher.soft_target_weight,
            feature_weight=teacher.feature_weight,
        )
    run.folder.mkdir(exist_ok=True)
    run.fit(student, photos, config, callbacks)


def unfreeze_but_normalization(model: keras.Model) -> None:
    """Make all layers trainable except the BatchNormalizations that were frozen.

    Their moving means and variances come from the many photos of the pretraining. Training would
    normalize by the batch instead, which cost an unpruned EfficientNetLite0 12 points.
    """
    import keras

    from kpipe.keras_internals import layers_within
    from kpipe.train import unfreeze

    frozen = [
        layer
        for layer in layers_within(model)
        if isinstance(layer, keras.layers.BatchNormalization) and not layer.trainable
    ]
    unfreeze(model)
    for layer in frozen:
        layer.trainable = False
