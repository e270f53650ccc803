"""ClusterWeights: weight clustering with TFMOT."""

from __future__ import annotations

import functools
from typing import Annotated, ClassVar

from kpipe.core.fields import Between
from kpipe.core.stage import Context, stage
from kpipe.stages.shared.field_types import LearningRate, PositiveInt
from kpipe.stages.shared.model_folder import is_saved
from kpipe.stages.shared.tfmot_stage import SIZE_NOT_SPEED, TfmotStage

__all__ = ["ClusterWeights"]


@stage
class ClusterWeights(TfmotStage):
    """Restrict each kernel to a few distinct weights: a smaller download, not a faster model.

    All layers train except normalizations that were frozen.

    Args:
        clusters: number of distinct weights in each kernel.
        epochs: number of epochs.
        learning_rate: initial learning rate, which falls along a cosine.
        batch_size: photos in a training step.

    Example:
        >>> from kpipe.stages import ClusterWeights
        >>> ClusterWeights(16)
        ClusterWeights(clusters=16, epochs=2, learning_rate=1e-05, batch_size=32)
    """

    # 2: normalizations that were frozen stay frozen.
    version: ClassVar = 2

    clusters: Annotated[int, Between(2)] = 32
    epochs: PositiveInt = 2
    learning_rate: LearningRate = 1e-5
    batch_size: PositiveInt = 32

    def run(self, context: Context) -> None:
        if is_saved(context.folder):
            return
        from kpipe.sparsity import cluster_weights, count_unique_weights

        model, photos = self.load(context)
        train = functools.partial(cluster_weights, clusters=self.clusters)
        clustered = self.train(context, train, model, photos)
        counts = count_unique_weights(clustered).values()
        kernels = sum(count <= self.clusters for count in counts)
        note = f"{kernels} kernels of {self.clusters} values or fewer: {SIZE_NOT_SPEED}"
        self.save(clustered, context, "clustered", note)
