"""ClusterWeights: TFMOT lets each kernel take a few values only."""

from __future__ import annotations

import functools
from typing import Annotated, ClassVar

from kpipe.core.fields import Between
from kpipe.core.stage import Context, Stage, stage
from kpipe.stages.fine_tune import Rate
from kpipe.stages.shared.model_folder import is_saved
from kpipe.stages.shared.tfmot import (
    GAIN,
    NEEDS,
    PACKAGES,
    begin_training,
    leave_model,
    train_by_tfmot,
)

__all__ = ["ClusterWeights"]


@stage
class ClusterWeights(Stage):
    """Let each kernel take a few values only, by TFMOT: a smaller download, not a faster model.

    All layers train, but for normalizations that were frozen.

    Args:
        clusters: how many values.
        epochs: of training while they move.
        learning_rate: of the training, at its beginning; it falls along a cosine.
        batch_size: photos in a step.
    """

    # 2: normalizations that were frozen stay so.
    version: ClassVar = 2
    needs: ClassVar = NEEDS
    gives: ClassVar = ("model",)
    publishes: ClassVar = ("model.keras",)
    packages: ClassVar = PACKAGES

    clusters: Annotated[int, Between(2)] = 32
    epochs: Annotated[int, Between(1)] = 2
    learning_rate: Rate = 1e-5
    batch_size: Annotated[int, Between(1)] = 32

    def run(self, context: Context) -> None:
        if is_saved(context.folder):
            return
        from kpipe.sparsity import cluster_weights, values_of

        train = functools.partial(cluster_weights, clusters=self.clusters)
        model, photos = begin_training(self, context)
        clustered = train_by_tfmot(self, context, train, model, photos)
        count = sum(values <= self.clusters for values in values_of(clustered).values())
        found = f"{count} kernels of {self.clusters} values or fewer: {GAIN}"
        leave_model(clustered, context, "clustered", found)
