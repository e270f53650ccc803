"""What the stages that train with TensorFlow Model Optimization share.

data, the newest model -> training, resumed if interrupted -> a model with the same layers
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from kpipe.core.stage import Context
from kpipe.stages.compression.retraining import retraining_rate, unfreeze_but_normalization
from kpipe.stages.compression.soft_targets import SoftTargets
from kpipe.stages.compression.teachers import TaughtStage
from kpipe.stages.photos.photo_dataset import PhotoDataset
from kpipe.stages.shared.model_folder import load_model, read_metadata, reset_keras, save_model

if TYPE_CHECKING:
    import keras

__all__ = ["SIZE_NOT_SPEED", "TfmotStage"]

SIZE_NOT_SPEED = "a smaller download, not a faster model"


class TfmotStage(TaughtStage):
    """The base of these stages; each declares the fields below."""

    needs: ClassVar = ("data", "model", "ensemble?", "balance?", "augmentation?")
    gives: ClassVar = ("model",)
    publishes: ClassVar = ("model.keras",)
    packages: ClassVar = ("keras", "tensorflow", "tensorflow-model-optimization", "tf_keras")

    epochs: int
    learning_rate: float | None
    batch_size: int

    def load(self, context: Context) -> tuple[keras.Model, PhotoDataset]:
        """Load the newest model, ready for training, and the photos."""
        reset_keras(context.seed)
        photos = PhotoDataset.read(context, batch_size=self.batch_size)
        model = load_model(context.newest("model"))
        unfreeze_but_normalization(model)
        return model, photos

    def taught(self, context: Context, photos: PhotoDataset) -> PhotoDataset:
        """Return the photos with a teacher's predictions in their labels."""
        teacher = self.find_teacher(context, photos)
        if teacher is None:
            return photos
        targets = SoftTargets(teacher, self.soft_target_weight)
        return dataclasses.replace(photos, soft_targets=targets)

    def train(
        self,
        context: Context,
        train: Callable[..., keras.Model],
        model: keras.Model,
        photos: PhotoDataset,
        *,
        schedule: str = "cosine",
    ) -> keras.Model:
        """Return a copy trained by a function of `kpipe.sparsity`."""
        from kpipe.sparsity import TrainingSettings

        def record(epoch: int, logs: dict[str, float]) -> None:
            context.journal.record(
                "epoch", what="TFMOT", epoch=epoch + 1, epochs=self.epochs, metrics=logs
            )

        return train(
            model,
            photos.training_dataset,
            epochs=self.epochs,
            steps_per_epoch=photos.steps_per_epoch,
            settings=TrainingSettings(
                learning_rate=retraining_rate(model, self.learning_rate),
                learning_rate_schedule=schedule,
                class_weight=photos.fit_class_weight,
                seed=context.seed,
                on_epoch=record,
            ),
            folder=context.folder / "training",
        )

    def save(self, model: keras.Model, context: Context, title: str, note: str = "") -> None:
        """Save the trained model; `title` is added to that of the newest model."""
        if note:
            context.journal.record("note", text=note)
        metadata = read_metadata(context.newest("model"))
        metadata["title"] += f", {title}"
        save_model(model, context.folder, **metadata)
