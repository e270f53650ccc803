"""Soft labels from a teacher, for training a smaller student.

    label' = (1 - weight) * label + weight * teacher(image)

The teacher sees the same augmented image as the student (Beyer et al. 2022, arXiv 2106.05237). Soft
labels are those of Hinton et al. 2015 (arXiv 1503.02531) at a temperature of 1. They are
probabilities, so any training loop for labels can use them.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from kpipe.errors import TrainingError
from kpipe.keras_graph import require_graph
from kpipe.train.batch_checks import refuse_unfit_batches
from kpipe.train.distillation.teacher_graph import TeacherGraph
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["soft_labels"]


@names_wrong_kinds
def soft_labels(
    batches: tf.data.Dataset, teacher: keras.Model, teacher_weight: float = 1.0
) -> tf.data.Dataset:
    """Mix the predictions of a teacher into the labels of a dataset.

    Args:
        batches: (images, labels) or (images, labels, weights); labels are class indices (batch,) or
            probabilities (batch, classes).
        teacher: images -> probabilities (batch, classes); runs in inference mode, beside the
            training step.
        teacher_weight: the fraction of the teacher's predictions in each label, in [0, 1].

    Returns:
        The batches with labels float32 (batch, classes), for a categorical cross-entropy.

    Raises:
        TrainingError: a weight out of range, batches without labels, or another kind of teacher.

    Example:
        >>> import keras
        >>> from kpipe.data import dataset, from_folder, split
        >>> from kpipe.train import soft_labels
        >>> batches = dataset(split(from_folder("photos")), "train", image_size=32, batch_size=8)
        >>> teacher = keras.Sequential([
        ...     keras.Input((32, 32, 3)),
        ...     keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(3, activation="softmax"),
        ... ])
        >>> images, labels = next(iter(soft_labels(batches, teacher)))
        >>> labels.shape
        TensorShape([8, 3])
    """
    if not 0 <= teacher_weight <= 1:
        raise TrainingError(
            "teacher_weight is out of range", expected="[0, 1]", received=repr(teacher_weight)
        )
    spec = batches.element_spec
    if not isinstance(spec, tuple) or len(spec) < 2:
        raise TrainingError(
            "the dataset has no labels",
            expected="batches of (images, labels)",
            received=str(spec),
        )
    if not (spec[1].dtype.is_integer or spec[1].dtype.is_floating):
        raise TrainingError(
            "the labels are not numbers",
            expected="integers (batch,), or probabilities (batch, classes)",
            received=str(spec[1]),
        )
    require_graph(teacher, TrainingError)
    refuse_unfit_batches(teacher, batches)
    classes, predict = teacher.output_shape[-1], TeacherGraph(teacher)

    def soften(images: tf.Tensor, labels: tf.Tensor, *rest: tf.Tensor) -> tuple[tf.Tensor, ...]:
        hard = tf.one_hot(labels, classes) if labels.dtype.is_integer else labels
        (predictions,) = predict(images)
        return (images, (1 - teacher_weight) * hard + teacher_weight * predictions, *rest)

    return batches.map(soften).prefetch(1)
