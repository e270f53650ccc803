"""MagnitudePrune, ClusterWeights, QuantizeAware: TFMOT trains the model once more.

needs data, the newest model -> training that was killed goes on -> a model of the same layers
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from kpipe.core.fields import Between
from kpipe.core.stage import Context, Stage, stage
from kpipe.stages.models import begin, is_saved, load_model, read_about, save_model
from kpipe.stages.photos import Photos
from kpipe.stages.training import Rate

if TYPE_CHECKING:
    import keras

__all__ = ["ClusterWeights", "MagnitudePrune", "QuantizeAware"]

_NEEDS = ("data", "model", "balance?", "augmentation?")
_DISTRIBUTIONS = ("keras", "tensorflow", "tensorflow-model-optimization", "tf_keras")


@stage
class MagnitudePrune(Stage):
    """Set the weights of least magnitude to zero, by TFMOT: a smaller download, not a faster model.

    Args:
        sparsity: the share of zeros in each convolution and dense kernel at the end, or "2 by 4"
            for two of every four weights along the input channels.
        schedule: how the zeros come: more and more of them ("polynomial") or all at once
            ("constant").
        epochs: of training while they do.
        learning_rate: of the training, at its beginning; it falls along a cosine.
        batch_size: photos in a step.
    """

    needs: ClassVar = _NEEDS
    gives: ClassVar = ("model",)
    publishes: ClassVar = ("model.keras",)
    distributions: ClassVar = _DISTRIBUTIONS

    sparsity: Annotated[float, Between(0, 1, strict=True)] | Literal["2 by 4"] = 0.5
    schedule: Literal["polynomial", "constant"] = "polynomial"
    epochs: Annotated[int, Between(1)] = 5
    learning_rate: Rate = 5e-4
    batch_size: Annotated[int, Between(1)] = 32

    def run(self, context: Context) -> None:
        from kpipe.sparsity import prune_magnitude, sparsity_of

        share = {"m_by_n": (2, 4)} if self.sparsity == "2 by 4" else {"sparsity": self.sparsity}

        def sparse(model: keras.Model, data: Any, **training: Any) -> keras.Model:
            return prune_magnitude(model, data, **share, schedule=self.schedule, **training)

        def told(model: keras.Model) -> str:
            least = 0.25 if self.sparsity == "2 by 4" else float(self.sparsity) / 2
            zeros = [share for share in sparsity_of(model).values() if share >= least]
            return f"{len(zeros)} kernels with {min(zeros):.0%} to {max(zeros):.0%} zeros"

        _by_tfmot(self, context, sparse, "sparse", told)


@stage
class ClusterWeights(Stage):
    """Let each kernel take a few values only, by TFMOT: a smaller download, not a faster model.

    Args:
        clusters: how many values.
        epochs: of training while they move.
        learning_rate: of the training, at its beginning; it falls along a cosine.
        batch_size: photos in a step.
    """

    needs: ClassVar = _NEEDS
    gives: ClassVar = ("model",)
    publishes: ClassVar = ("model.keras",)
    distributions: ClassVar = _DISTRIBUTIONS

    clusters: Annotated[int, Between(2)] = 32
    epochs: Annotated[int, Between(1)] = 2
    learning_rate: Rate = 1e-5
    batch_size: Annotated[int, Between(1)] = 32

    def run(self, context: Context) -> None:
        from kpipe.sparsity import cluster_weights, values_of

        def clustered(model: keras.Model, data: Any, **training: Any) -> keras.Model:
            return cluster_weights(model, data, clusters=self.clusters, **training)

        def told(model: keras.Model) -> str:
            count = sum(values <= self.clusters for values in values_of(model).values())
            return f"{count} kernels of {self.clusters} values or fewer"

        _by_tfmot(self, context, clustered, "clustered", told)


@stage
class QuantizeAware(Stage):
    """Train with the rounding of int8, by TFMOT, so that the int8 file loses less.

    Args:
        epochs: of training.
        learning_rate: of the training, at its beginning; it falls along a cosine.
        batch_size: photos in a step.
    """

    needs: ClassVar = _NEEDS
    gives: ClassVar = ("model",)
    publishes: ClassVar = ("model.keras",)
    distributions: ClassVar = _DISTRIBUTIONS

    epochs: Annotated[int, Between(1)] = 2
    learning_rate: Rate = 1e-5
    batch_size: Annotated[int, Between(1)] = 32

    def run(self, context: Context) -> None:
        from kpipe.sparsity import train_quantized

        _by_tfmot(self, context, train_quantized, "int8-aware", None)


def _by_tfmot(
    stage: MagnitudePrune | ClusterWeights | QuantizeAware,
    context: Context,
    train: Callable[..., keras.Model],
    title: str,
    told: Callable[[keras.Model], str] | None,
) -> None:
    """Train the newest model and leave it; say what was reached, and what it does not bring."""
    from kpipe.sparsity import TrainingSettings
    from kpipe.train import unfreeze

    if is_saved(context.folder):
        return
    begin(context.seed)
    source = context.newest("model")
    photos = Photos.read(context, batch_size=stage.batch_size)
    model = load_model(source)
    unfreeze(model)

    def tell(epoch: int, logs: dict[str, float]) -> None:
        context.journal.record(
            "epoch", what="TFMOT", epoch=epoch + 1, epochs=stage.epochs, metrics=logs
        )

    trained = train(
        model,
        photos.training,
        epochs=stage.epochs,
        steps_per_epoch=photos.steps,
        settings=TrainingSettings(
            learning_rate=stage.learning_rate,
            rate_schedule="cosine",
            class_weight=photos.fit_weight,
            seed=context.seed,
            on_epoch=tell,
        ),
        folder=context.folder / "training",
    )
    if told is not None:
        context.journal.record(
            "note", text=f"{told(trained)}: a smaller download, not a faster model"
        )
    about = read_about(source)
    save_model(trained, context.folder, **{**about, "title": f"{about['title']}, {title}"})
