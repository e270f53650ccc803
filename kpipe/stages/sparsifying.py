"""MagnitudePrune: zeros among the weights, by TFMOT."""

from __future__ import annotations

from typing import Annotated, ClassVar

from kpipe.core.fields import Between
from kpipe.core.stage import Context, Stage, stage
from kpipe.stages.models import begin, is_saved, load_model, read_about, save_model
from kpipe.stages.photos import Photos
from kpipe.stages.training import Rate

__all__ = ["MagnitudePrune"]


@stage
class MagnitudePrune(Stage):
    """Set the weights of least magnitude to zero, by TFMOT: a smaller download, not a faster model.

    Args:
        sparsity: the share of zeros in each convolution and dense kernel at the end.
        epochs: of training while the share grows.
        learning_rate: of the training.
        batch_size: photos in a step.
    """

    needs: ClassVar = ("data", "model", "balance?", "augmentation?")
    gives: ClassVar = ("model",)
    publishes: ClassVar = ("model.keras",)
    distributions: ClassVar = (
        "keras",
        "tensorflow",
        "tensorflow-model-optimization",
        "tf_keras",
    )

    sparsity: Annotated[float, Between(0, 1, strict=True)] = 0.5
    epochs: Annotated[int, Between(1)] = 2
    learning_rate: Rate = 1e-4
    batch_size: Annotated[int, Between(1)] = 32

    def run(self, context: Context) -> None:
        from kpipe.sparsity import TrainingSettings, prune_magnitude, sparsity_of
        from kpipe.train import unfreeze

        if is_saved(context.folder):
            return
        begin(context.seed)
        source = context.newest("model")
        photos = Photos.read(context, batch_size=self.batch_size)
        model = load_model(source)
        unfreeze(model)

        def tell(epoch: int, logs: dict[str, float]) -> None:
            context.journal.record(
                "epoch", what="TFMOT", epoch=epoch + 1, epochs=self.epochs, metrics=logs
            )

        sparse = prune_magnitude(
            model,
            photos.training,
            sparsity=self.sparsity,
            epochs=self.epochs,
            steps_per_epoch=photos.steps,
            settings=TrainingSettings(
                learning_rate=self.learning_rate,
                class_weight=photos.fit_weight,
                seed=context.seed,
                on_epoch=tell,
            ),
            folder=context.folder / "training",
        )
        zeros = [share for share in sparsity_of(sparse).values() if share >= self.sparsity / 2]
        context.journal.record(
            "note",
            text=f"{len(zeros)} kernels with {min(zeros):.0%} to {max(zeros):.0%} zeros: "
            "a smaller download, not a faster model",
        )
        about = read_about(source)
        save_model(sparse, context.folder, **{**about, "title": f"{about['title']}, sparse"})
