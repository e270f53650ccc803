"""MagnitudePrune: magnitude pruning with TFMOT.

The zeros cost accuracy, which a second training by Keras recovers: it keeps the zeros and learns
from a teacher.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, ClassVar, Literal

from kpipe.core.stage import Context, stage
from kpipe.stages.compression.retraining import Lesson, retrain, retraining_rate
from kpipe.stages.compression.teachers import TeacherChoice
from kpipe.stages.compression.tfmot_stage import SIZE_NOT_SPEED, TfmotStage
from kpipe.stages.photos.photo_dataset import PhotoDataset
from kpipe.stages.shared.field_types import (
    LearningRate,
    LossWeight,
    NonNegativeInt,
    OpenUnitInterval,
    PositiveInt,
)
from kpipe.stages.shared.model_folder import is_saved, join_histories
from kpipe.stages.training.training_run import TrainingRun

if TYPE_CHECKING:
    import keras

__all__ = ["MagnitudePrune"]


@stage
class MagnitudePrune(TfmotStage):
    """Set the weights of least magnitude to zero: a smaller download, not a faster model.

    All layers train except normalizations that were frozen.

    Args:
        sparsity: final fraction of zeros in each convolution and dense kernel, in (0, 1); or
            "2 by 4" for two zeros in every four weights along the input channels.
        schedule: "polynomial" for a growing number of zeros, "constant" for all zeros at once.
        epochs: epochs of training by TFMOT, which sets the zeros.
        last_epochs: epochs of training by Keras that follow and keep the zeros; the epoch with
            the lowest validation loss is kept. 0 for none.
        teacher: whose predictions these epochs learn beside the labels: "model" for the unpruned
            network, "ensemble", "auto" for the one with the lower cross-entropy on validation, or
            None.
        soft_target_weight: weight of these predictions in the loss, 0 or more, relative to the
            labels; see `kpipe.train.Distiller`.
        feature_weight: weight of the unpruned network's features, 0 or more.
        learning_rate: initial learning rate of both training runs; it falls along a cosine in the
            last of them and is constant before. None for 1e-4 if any normalization is
            frozen, as `FineTune` leaves it, else 5e-4.
        batch_size: photos in a training step.

    Example:
        >>> from kpipe.stages import MagnitudePrune
        >>> MagnitudePrune(sparsity="2 by 4", last_epochs=3).validation_errors()
        []
        >>> MagnitudePrune(sparsity=1.5).validation_errors()
        ["sparsity=1.5: expected a number between 0 and 1, both excluded or '2 by 4'"]
    """

    # 2: learns from an ensemble; 3: frozen normalizations are folded, which rounds differently
    version: ClassVar = 3

    sparsity: OpenUnitInterval | Literal["2 by 4"] = 0.5
    schedule: Literal["polynomial", "constant"] = "polynomial"
    epochs: PositiveInt = 3
    last_epochs: NonNegativeInt = 6
    teacher: TeacherChoice = "auto"
    soft_target_weight: LossWeight = 1.0
    feature_weight: LossWeight = 0.0
    learning_rate: LearningRate | None = None
    batch_size: PositiveInt = 16

    def validation_errors(self) -> list[str]:
        errors = super().validation_errors()
        if errors or self.last_epochs:
            return errors
        unused = {"teacher": self.teacher == "ensemble", "feature_weight": self.feature_weight > 0}
        return [
            f"{name}={getattr(self, name)!r}: has no effect with last_epochs=0"
            for name, is_set in unused.items()
            if is_set
        ]

    def run(self, context: Context) -> None:
        if is_saved(context.folder):
            return
        from kpipe.sparsity import measure_sparsity, prune_magnitude

        by_pattern = self.sparsity == "2 by 4"
        target = {"m_by_n": (2, 4)} if by_pattern else {"sparsity": self.sparsity}
        train = functools.partial(prune_magnitude, **target, schedule=self.schedule)
        model, photos = self.load(context)
        schedule = "constant" if self.last_epochs else "cosine"
        sparse = self.train(context, train, model, photos, schedule=schedule)
        if self.last_epochs:
            self._retrain(sparse, model, photos, context)
        least = 0.25 if by_pattern else float(self.sparsity) / 2
        zeros = [fraction for fraction in measure_sparsity(sparse).values() if fraction >= least]
        # In a tiny kernel the fraction can round to zero weights.
        note = "no kernel reached the sparsity: nothing is gained"
        if zeros:
            span = f"{min(zeros):.0%} to {max(zeros):.0%}"
            note = f"{len(zeros)} kernels with {span} zeros: {SIZE_NOT_SPEED}"
        self.save(sparse, context, "sparse", note)

    def _retrain(
        self, sparse: keras.Model, unpruned: keras.Model, photos: PhotoDataset, context: Context
    ) -> None:
        from kpipe.sparsity import KeepZeros

        run = TrainingRun("sparse", context.folder / "training-last", context.journal)
        teacher = self.find_teacher(context, photos)
        retrain(
            sparse,
            Lesson(teacher, unpruned, self.soft_target_weight, self.feature_weight),
            photos.reseeded(context.seed + 1),
            run,
            epochs=self.last_epochs,
            learning_rate=retraining_rate(unpruned, self.learning_rate),
            callbacks=[KeepZeros(sparse)],
        )
        join_histories(context.folder, [run.folder])
