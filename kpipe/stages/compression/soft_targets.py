"""What a teacher adds to the training batches: soft labels, and photos without labels.

    label'  of a labelled photo    (label + weight * teacher(image)) / (1 + weight)
            of an unlabelled one   teacher(image)

    an epoch := all labelled batches, with the unlabelled batches spread evenly between them

The teacher sees the image that the student trains on: augmented, mixed, at full size (Beyer et al.
2022, arXiv 2106.05237). Labels are then probabilities like those of mixed photos, so phases on
cached features, low resolution first, averages of weights, switches and resuming work as without a
teacher. Distillation on unlabelled photos: Hinton et al. 2015, arXiv 1503.02531, section 3.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from kpipe.stages.compression.teachers import Teacher

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from kpipe.data import Manifest

__all__ = ["SoftTargets", "Unlabelled"]


@dataclasses.dataclass(frozen=True)
class Unlabelled:
    """Photos that a teacher labels.

    Attributes:
        manifest: all of them in the split "train".
        images: uint8 (photos, size, size, 3) in [0, 255], in the manifest's order.
    """

    manifest: Manifest
    images: np.ndarray


@dataclasses.dataclass(frozen=True)
class SoftTargets:
    """A teacher of the photos that a network trains on.

    Attributes:
        teacher: its predictions become part of the labels.
        weight: of its predictions relative to the labels, above 0.
        unlabelled: further photos, which have its predictions alone.
    """

    teacher: Teacher
    weight: float
    unlabelled: Unlabelled | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that the soft labels depend on, as plain data for a cache key."""
        further = self.unlabelled.manifest.digest if self.unlabelled else ""
        return {"teacher": self.teacher.digest, "weight": self.weight, "unlabelled": further}

    def taught(
        self, batches: tf.data.Dataset, unlabelled: tf.data.Dataset | None, turns: np.ndarray
    ) -> tf.data.Dataset:
        """Return endless batches with soft labels.

        Args:
            batches: endless (images, labels[, weights]) from the start of an epoch on.
            unlabelled: endless batches from the same epoch on, whose labels do not count.
            turns: for each step of an epoch, whether its batch is unlabelled, bool (steps,).
        """
        import tensorflow as tf

        from kpipe.train import soft_labels

        model = self.teacher.model
        labelled = soft_labels(batches, model, self.weight / (1 + self.weight))
        if unlabelled is None:
            return labelled
        weighted = len(batches.element_spec) > 2

        def without_labels(images: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, ...]:
            count = tf.shape(images)[0]
            weights = (tf.ones(count),) if weighted else ()
            return (images, tf.zeros(count, tf.int32), *weights)

        alone = soft_labels(unlabelled.map(without_labels), model, 1.0)
        choices = tf.data.Dataset.from_tensor_slices(turns.astype("int64")).repeat()
        return tf.data.Dataset.choose_from_datasets([labelled, alone], choices)
