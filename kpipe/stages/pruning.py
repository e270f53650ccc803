"""FilterPrune and MagnitudePrune: a smaller network that still knows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from kpipe.core.fields import Between
from kpipe.core.stage import Context, Stage, stage
from kpipe.stages.members import fit_on
from kpipe.stages.models import (
    begin,
    is_saved,
    join_histories,
    load_model,
    read_about,
    save_model,
)
from kpipe.stages.photos import Photos
from kpipe.stages.training import OPTIMIZERS, Rate

if TYPE_CHECKING:
    import keras

__all__ = ["FilterPrune", "MagnitudePrune"]

_RECALIBRATION_STEPS = 20


@stage
class FilterPrune(Stage):
    """Rank the filters of the whole network, remove the lowest, retrain, repeat.

    Args:
        criterion: what ranks a filter, see `kpipe.prune.rank`; what looks at activations sees the
            validation photos.
        macs: the share of multiply-accumulates to keep.
        rounds: how many times filters are removed and the rest retrained.
        epochs: of retraining after each round; the best by validation loss is kept.
        optimizer: of the retraining; all layers train.
        learning_rate: its rate.
        batch_size: photos in a step.
    """

    needs: ClassVar = ("data", "model", "balance?", "augmentation?")
    gives: ClassVar = ("model",)
    publishes: ClassVar = ("model.keras",)
    distributions: ClassVar = ("keras", "tensorflow")

    criterion: Literal[
        "apoz",
        "bn_scale",
        "geometric_median",
        "l1",
        "l2",
        "mean_activation",
        "random",
        "reconstruction",
        "taylor",
    ] = "l1"
    macs: Annotated[float, Between(0, 1, strict=True)] = 0.5
    rounds: Annotated[int, Between(1)] = 3
    epochs: Annotated[int, Between(1)] = 5
    optimizer: OPTIMIZERS = "adam"
    learning_rate: Rate = 1e-3
    # Small batches: after a removal, the number of steps is what is missing.
    batch_size: Annotated[int, Between(1)] = 16

    def run(self, context: Context) -> None:
        from kpipe.prune import Selection, prune_filters
        from kpipe.train import FitPlan, recalibrate, unfreeze

        if is_saved(context.folder):
            return
        begin(context.seed)
        source = context.newest("model")
        photos = Photos.read(context, batch_size=self.batch_size)
        labels = photos.manifest.labels("validation")
        plan = FitPlan(
            epochs=self.epochs,
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            schedule="cosine",
            class_weight=photos.fit_weight,
        )

        def folder_of(number: int) -> Path:
            return context.folder / f"training-round-{number}"

        def finetune(model: keras.Model, number: int) -> None:
            folder_of(number).mkdir(exist_ok=True)
            varied = photos.varied(context.seed + number, 1.0)
            title = f"round {number} of {self.rounds}"
            unfreeze(model)
            batches = varied.training(0).take(min(varied.steps, _RECALIBRATION_STEPS))
            recalibrate(model, (images for images, *_ in batches))
            fit_on(model, varied, plan, folder_of(number), context.journal, title)

        def evaluate(model: keras.Model) -> float:
            answers = model.predict(photos.finite("validation"), verbose=0)
            return float((answers.argmax(axis=1) == labels).mean())

        result = prune_filters(
            load_model(source),
            macs=self.macs,
            criterion=self.criterion,
            rounds=self.rounds,
            finetune=finetune,
            evaluate=evaluate,
            selection=Selection(seed=context.seed, data=photos.finite("validation")),
            folder=context.folder / "training",
        )
        for row in result.history[1:]:
            context.journal.record(
                "note",
                text=f"round {row.round}: {row.macs / 1e6:.1f} M MACs ({row.share:.1%}); accuracy "
                f"{row.before:.1%} after removal, {row.after:.1%} retrained, on validation",
            )
        join_histories(context.folder, map(folder_of, range(1, self.rounds + 1)))
        about = read_about(source)
        save_model(result.model, context.folder, **{**about, "title": f"{about['title']}, pruned"})


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
        from kpipe.sparsity import MagnitudeSettings, prune_magnitude, sparsity_of
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
            settings=MagnitudeSettings(
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
