"""ClusterWeights: weight clustering with TFMOT."""

from __future__ import annotations

import functools
from typing import Annotated, ClassVar

from kpipe.core.fields import Between
from kpipe.core.stage import Context, stage
from kpipe.stages.compression.teachers import TeacherChoice
from kpipe.stages.compression.tfmot_stage import SIZE_NOT_SPEED, TfmotStage
from kpipe.stages.shared.field_types import LearningRate, LossWeight, PositiveInt
from kpipe.stages.shared.model_folder import is_saved

__all__ = ["ClusterWeights"]


@stage
class ClusterWeights(TfmotStage):
    """Restrict each kernel to a few distinct weights: a smaller download, not a faster model.

    All layers train except normalizations that were frozen.

    Args:
        clusters: number of distinct weights in each kernel.
        epochs: number of epochs.
        teacher: whose predictions it learns beside the labels: "model" for the network before this
            training, "ensemble", "auto" for the one with the lower cross-entropy on validation, or
            None.
        soft_target_weight: weight of these predictions in the loss, 0 or more, relative to the
            labels.
        learning_rate: initial learning rate, which falls along a cosine.
        batch_size: photos in a training step.

    Example:
        >>> from kpipe.stages import ClusterWeights
        >>> ClusterWeights(16).epochs
        2
    """

    # 2: normalizations that were frozen stay frozen.
    # 3: learns from a teacher
    version: ClassVar = 3

    clusters: Annotated[int, Between(2)] = 32
    epochs: PositiveInt = 2
    teacher: TeacherChoice = "auto"
    soft_target_weight: LossWeight = 1.0
    learning_rate: LearningRate = 1e-5
    batch_size: PositiveInt = 32

    def run(self, context: Context) -> None:
        if is_saved(context.folder):
            return
        from kpipe.sparsity import cluster_weights, count_unique_weights

        model, photos = self.load(context)
        train = functools.partial(cluster_weights, clusters=self.clusters)
        clustered = self.train(context, train, model, self.taught(context, photos))
        counts = count_unique_weights(clustered).values()
        kernels = sum(count <= self.clusters for count in counts)
        note = f"{kernels} kernels of {self.clusters} values or fewer: {SIZE_NOT_SPEED}"
        self.save(clustered, context, "clustered", note)
