"""MagnitudePrune: TFMOT sets weights to zero while the network trains.

The zeros cost accuracy, which a second training by Keras wins back: it keeps them, and learns from
the network as it was.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from kpipe.core.fields import Between
from kpipe.core.stage import Context, Stage, stage
from kpipe.stages.fine_tune import Rate
from kpipe.stages.shared.model_folder import is_saved, join_histories
from kpipe.stages.shared.photos import Photos
from kpipe.stages.shared.retraining import Weight, retrain
from kpipe.stages.shared.tfmot import (
    GAIN,
    NEEDS,
    PACKAGES,
    begin_training,
    leave_model,
    train_by_tfmot,
)

if TYPE_CHECKING:
    import keras

__all__ = ["MagnitudePrune"]


@stage
class MagnitudePrune(Stage):
    """Set the weights of least magnitude to zero, by TFMOT: a smaller download, not a faster model.

    All layers train, but for normalizations that were frozen.

    Args:
        sparsity: the share of zeros in each convolution and dense kernel at the end, or "2 by 4"
            for two of every four weights along the input channels.
        schedule: how the zeros come: more and more of them ("polynomial") or all at once
            ("constant").
        epochs: of training by TFMOT while they do.
        last_epochs: of training by Keras after it, which leaves the zeros where they are; its epoch
            of the lowest validation loss is kept. 0 for none.
        soft_target_weight: what the answers of the network as it was weigh beside the labels in the
            loss of those epochs, 0 or more; see `kpipe.train.Distiller`.
        feature_weight: what its features weigh, 0 or more.
        learning_rate: of both trainings, at their beginnings; in the last of them it falls along a
            cosine, before that it stays.
        batch_size: photos in a step.
    """

    needs: ClassVar = NEEDS
    gives: ClassVar = ("model",)
    publishes: ClassVar = ("model.keras",)
    packages: ClassVar = PACKAGES

    sparsity: Annotated[float, Between(0, 1, strict=True)] | Literal["2 by 4"] = 0.5
    schedule: Literal["polynomial", "constant"] = "polynomial"
    epochs: Annotated[int, Between(1)] = 3
    last_epochs: Annotated[int, Between(0)] = 6
    soft_target_weight: Weight = 1.0
    feature_weight: Weight = 0.0
    learning_rate: Rate = 5e-4
    batch_size: Annotated[int, Between(1)] = 16

    def validation_errors(self) -> list[str]:
        idle = self.feature_weight if not self.last_epochs else 0
        contradiction = f"feature_weight={idle}: it weighs in last_epochs, and these are 0"
        return super().validation_errors() or [contradiction] * bool(idle)

    def run(self, context: Context) -> None:
        if is_saved(context.folder):
            return
        from kpipe.sparsity import prune_magnitude, sparsity_of

        share = {"m_by_n": (2, 4)} if self.sparsity == "2 by 4" else {"sparsity": self.sparsity}
        train = functools.partial(prune_magnitude, **share, schedule=self.schedule)
        model, photos = begin_training(self, context)
        sparse = train_by_tfmot(self, context, train, model, photos, falls=not self.last_epochs)
        if self.last_epochs:
            self._retrain(sparse, model, photos, context)
        least = 0.25 if self.sparsity == "2 by 4" else float(self.sparsity) / 2
        zeros = [share for share in sparsity_of(sparse).values() if share >= least]
        # A share of a few weights may round to none.
        found = "no kernel has so many zeros: nothing is gained"
        if zeros:
            span = f"{min(zeros):.0%} to {max(zeros):.0%}"
            found = f"{len(zeros)} kernels with {span} zeros: {GAIN}"
        leave_model(sparse, context, "sparse", found)

    def _retrain(
        self, sparse: keras.Model, model: keras.Model, photos: Photos, context: Context
    ) -> None:
        """Train the model of zeros further, taught by the one without."""
        from kpipe.sparsity import KeepZeros
        from kpipe.train import TrainingConfig

        folder = context.folder / "training-last"
        retrain(
            sparse,
            model,
            photos.varied(context.seed + 1, 1.0),
            TrainingConfig(
                epochs=self.last_epochs,
                optimizer="adam",
                learning_rate=self.learning_rate,
                schedule="cosine",
                class_weight=photos.fit_weight,
            ),
            folder,
            context.journal,
            "sparse",
            soft_target_weight=self.soft_target_weight,
            feature_weight=self.feature_weight,
            callbacks=[KeepZeros(sparse)],
        )
        join_histories(context.folder, [folder])
