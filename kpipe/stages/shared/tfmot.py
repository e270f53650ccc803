"""What the stages that train by TFMOT share.

needs data, the newest model -> training that was killed goes on -> a model of the same layers
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from kpipe.core.stage import Context
from kpipe.stages.shared.model_folder import begin, load_model, read_about, save_model
from kpipe.stages.shared.photos import Photos
from kpipe.stages.shared.retraining import unfreeze_but_normalization

if TYPE_CHECKING:
    import keras

__all__ = [
    "GAIN",
    "NEEDS",
    "PACKAGES",
    "TrainedByTfmot",
    "begin_training",
    "leave_model",
    "train_by_tfmot",
]

NEEDS = ("data", "model", "balance?", "augmentation?")
PACKAGES = ("keras", "tensorflow", "tensorflow-model-optimization", "tf_keras")
GAIN = "a smaller download, not a faster model"


class TrainedByTfmot(Protocol):
    """The fields that a stage must have to be trained by TFMOT."""

    @property
    def epochs(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def batch_size(self) -> int: ...


def begin_training(stage: TrainedByTfmot, context: Context) -> tuple[keras.Model, Photos]:
    """The newest model, to be trained, and what it is trained on."""
    begin(context.seed)
    photos = Photos.read(context, batch_size=stage.batch_size)
    model = load_model(context.newest("model"))
    unfreeze_but_normalization(model)
    return model, photos


def train_by_tfmot(
    stage: TrainedByTfmot,
    context: Context,
    train: Callable[..., keras.Model],
    model: keras.Model,
    photos: Photos,
    *,
    falls: bool = True,
) -> keras.Model:
    """A trained copy; the learning rate falls along a cosine, or stays."""
    from kpipe.sparsity import TrainingSettings

    def tell(epoch: int, logs: dict[str, float]) -> None:
        context.journal.record(
            "epoch", what="TFMOT", epoch=epoch + 1, epochs=stage.epochs, metrics=logs
        )

    return train(
        model,
        photos.training,
        epochs=stage.epochs,
        steps_per_epoch=photos.steps,
        settings=TrainingSettings(
            learning_rate=stage.learning_rate,
            rate_schedule="cosine" if falls else "constant",
            class_weight=photos.fit_weight,
            seed=context.seed,
            on_epoch=tell,
        ),
        folder=context.folder / "training",
    )


def leave_model(model: keras.Model, context: Context, title: str, found: str = "") -> None:
    """Save the model; say what was found in it."""
    if found:
        context.journal.record("note", text=found)
    about = read_about(context.newest("model"))
    save_model(model, context.folder, **{**about, "title": f"{about['title']}, {title}"})
