"""Labels from a model that knows: what a smaller one is retrained on.

    label' = (1 - share) * label + share * teacher(image)

The teacher sees the very image that the student sees, changed in the same way, and its answer is
all the student is asked for where the share is 1 (Beyer et al. 2022, arXiv 2106.05237). The soft
answers are those of Hinton et al. 2015 (arXiv 1503.02531) at a temperature of 1. Labels stay
probabilities, so that any loop that trains on labels can use them.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from kpipe.errors import TrainingError

__all__ = ["soft_labels"]


def soft_labels(
    batches: tf.data.Dataset, teacher: keras.Model, share: float = 1.0
) -> tf.data.Dataset:
    """The same batches, with labels that are in part the answers of a teacher.

    Args:
        batches: (images, labels) or (images, labels, weights); labels are class indices (batch,) or
            shares of the classes (batch, classes).
        teacher: images -> probabilities (batch, classes); in inference, not trained.
        share: of the teacher in each label, in [0, 1].

    Returns:
        The batches, labels float32 (batch, classes): the loss is a categorical cross-entropy.

    Raises:
        TrainingError: a share out of range, or batches without labels.
    """
    if not 0 <= share <= 1:
        raise TrainingError(
            "share, of the teacher in a label, is out of range",
            expected="[0, 1]",
            received=repr(share),
        )
    spec = batches.element_spec
    if not isinstance(spec, tuple) or len(spec) < 2:
        raise TrainingError(
            "there are no labels to soften",
            expected="batches of (images, labels)",
            received=str(spec),
        )
    classes = teacher.output_shape[-1]

    def soften(images: tf.Tensor, labels: tf.Tensor, *rest: tf.Tensor) -> tuple[tf.Tensor, ...]:
        hard = tf.one_hot(labels, classes) if labels.dtype.is_integer else labels
        answers = teacher(images, training=False)
        return (images, (1 - share) * hard + share * answers, *rest)

    return batches.map(soften)
