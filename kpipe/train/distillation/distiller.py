"""Distillation of a teacher's predictions and features into a smaller student.

    loss    = (loss(label, student(image))
               + soft_target_weight * crossentropy(teacher(image), student(image))
               + feature_weight * mean((targets - P(features of the student))^2))
              / (1 + soft_target_weight + feature_weight)
    targets = (features of the teacher - mean) / (deviation + 5 % of the mean deviation)

The teacher sees the same image as the student, augmented and mixed (Beyer et al. 2022,
arXiv 2106.05237), and runs in inference mode as a `TeacherGraph`. Its predictions are soft targets
(Hinton et al. 2015, arXiv 1503.02531) at a temperature of 1. Features are the input of the
classification layer
(FitNets: Romero et al. 2015, arXiv 1412.6550). P is a linear map, so the student may have fewer
features, in another order. P starts as the ridge regression of the targets on the student's
features, trains with the student and is discarded. A prediction has one number for each class, but
features are a thousand numbers: in the same number of epochs, they help a network that lost most of
its filters more.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from sklearn.linear_model import Ridge

from kpipe.errors import TrainingError
from kpipe.finite_weights import refuse_non_finite_weights
from kpipe.train.argument_checks import refuse_out_of_range
from kpipe.train.distillation.compared_features import averaged, last_outputs, with_features
from kpipe.train.distillation.teacher_graph import TeacherGraph
from kpipe.train.transfer.blocks import read_calls
from kpipe.wrong_kinds import names_wrong_kinds_of_fields

__all__ = ["Distiller"]

_FLOOR = 0.05  # added, times the mean deviation, so that near-constant features weigh less
_PENALTY = 0.3  # of the ridge regression, per photo, times the larger mean variance of features
_MOST_WEIGHTS = 2**24  # of P


@names_wrong_kinds_of_fields
class Distiller(keras.Model):
    """Train a student with the predictions and features of a teacher in the loss.

    In evaluation and inference a Distiller equals its student. The teacher contributes to the loss
    in training only, with the sample weights of the labels: "loss" is the weighted mean of all
    terms, "val_loss" the student's own loss. After training, save the student.

    Args:
        student: images -> probabilities (batch, classes), a model with one input and one output.
            The defaults suit a student pruned from the teacher, with all layers trainable.
        teacher: the same, larger; runs in inference mode.
        sample: batches of images, or tuples that begin with images, at most 10,000 photos. They
            determine the mean and deviation of the targets and the initial P; a few hundred
            suffice.
        feature_teacher: the model whose features are compared, if not the teacher: an ensemble has
            none, but the network before its pruning does. What it shares with the teacher, such as
            a member of the ensemble, is computed once.
        soft_target_weight: weight of the teacher's predictions relative to the labels, 0 or more.
        feature_weight: weight of its features, 0 or more; with 0, features are not computed.
        layer: the name of a layer in both models whose input (batch, ..., features) is compared,
            averaged over the axes in between. None for the last Dense layer, if no layer with
            weights follows it. The input of preceding Dropout layers is used.

    Raises:
        TrainingError: a negative weight; models without a graph, with several inputs or outputs,
            with other images or classes than each other, with NaN weights, with shared trainable
            weights, or without probabilities; a sample that is too small, endless or of another
            shape; or a layer that is missing or whose input cannot be compared.

    Example:
        >>> import keras
        >>> from kpipe.data import dataset, from_folder, split
        >>> from kpipe.train import Distiller
        >>> def network(filters):
        ...     return keras.Sequential([
        ...         keras.Input((32, 32, 3)),
        ...         keras.layers.Conv2D(filters, 3, strides=2, activation="relu"),
        ...         keras.layers.GlobalAveragePooling2D(),
        ...         keras.layers.Dense(3, activation="softmax"),
        ...     ])
        >>> batches = dataset(split(from_folder("photos")), "train", image_size=32, batch_size=8)
        >>> student, teacher = network(4), network(16)
        >>> distiller = Distiller(student, teacher, sample=batches)
        >>> distiller.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        >>> history = distiller.fit(batches, shuffle=False, verbose=0)
        >>> student.save("student.keras")
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model,
        sample: Iterable[Any],
        *,
        feature_teacher: keras.Model | None = None,
        soft_target_weight: float = 4.0,
        feature_weight: float = 40.0,
        layer: str | None = None,
    ) -> None:
        # The student casts its input itself, and the teacher must see the original.
        super().__init__(name="distiller", dtype="float32", autocast=False)
        for name, weight in (
            ("soft_target_weight", soft_target_weight),
            ("feature_weight", feature_weight),
        ):
            refuse_out_of_range(name, weight, 0)
        _check(student, teacher)
        self.output_shape = student.output_shape
        source = teacher
        if feature_weight and feature_teacher is not None:
            _check(student, feature_teacher)
            source = feature_teacher
        known = with_features(source, feature_weight, layer, "teacher")
        if source is not teacher:
            pixels = keras.Input(batch_shape=teacher.inputs[0].shape, dtype=teacher.inputs[0].dtype)
            predictions = keras.tree.flatten(teacher(pixels, training=False))
            known = keras.Model(pixels, [*predictions, known(pixels, training=False)[1]])
        self._student = with_features(student, feature_weight, layer, "student")
        self._weights = (soft_target_weight, feature_weight)
        # Not a Keras object, so that Keras does not track the teacher's weights.
        self._teacher = TeacherGraph(known)
        student_features, teacher_features = last_outputs(sample, self._student, self._teacher)
        if feature_weight:
            self._mean, self._deviation = _scale(teacher_features)
            targets = (teacher_features - self._mean) / self._deviation
            variance = teacher_features.var(axis=0).mean()
            self._projection = _regression(student_features, targets, variance)
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return probabilities; in training [probabilities, P of the features if they count]."""
        predictions, *features = keras.tree.flatten(self._student(inputs, training=training))
        if not training:
            return predictions
        return [predictions, *(self._projection(averaged(maps)) for maps in features)]

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Return the loss of the module's formula; `y_pred` is the output of `call`."""
        own = super().compute_loss(x, y, _first(y_pred), sample_weight, training)
        if not training:
            return own
        pairs = zip(self._targets(x), y_pred, strict=True)
        losses = (keras.losses.CategoricalCrossentropy(), keras.losses.MeanSquaredError())
        added = (
            weight * loss(targets, outputs, sample_weight)
            for weight, loss, (targets, outputs) in zip(self._weights, losses, pairs, strict=False)
        )
        return sum(added, own) / (1 + sum(self._weights))

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Compute the metrics of the student's predictions."""
        return super().compute_metrics(x, y, _first(y_pred), sample_weight)

    def _targets(self, images: Any) -> list[Any]:
        """Return the teacher's predictions, and the targets of features if they count."""
        outputs = map(keras.ops.stop_gradient, self._teacher(images))
        predictions, *features = (keras.ops.cast(x, "float32") for x in outputs)
        return [predictions, *((averaged(x) - self._mean) / self._deviation for x in features)]

    def get_config(self) -> dict[str, Any]:
        raise TrainingError(
            "a Distiller holds its teacher and cannot be saved",
            fix="save the student, which holds the trained weights; during training, use "
            "ModelCheckpoint(save_weights_only=True)",
        )


def _first(outputs: Any) -> Any:
    return outputs[0] if isinstance(outputs, list | tuple) else outputs


def _check(student: keras.Model, teacher: keras.Model) -> None:
    """Raise a TrainingError for models that cannot be student and teacher."""
    shapes = {}
    for role, model in (("student", student), ("teacher", teacher)):
        read_calls(model)  # raises an error without a graph
        refuse_non_finite_weights(model, TrainingError)
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise TrainingError(
                f"the {role} must map images to probabilities",
                expected="one input, one output",
                received=f"{len(model.inputs)} inputs, {len(model.outputs)} outputs",
            )
        shapes[role] = tuple(x.shape[1:] for x in (*model.inputs, *model.outputs))
    if shapes["student"] != shapes["teacher"]:
        raise TrainingError(
            "student and teacher have different input or output shapes",
            expected="{} -> {}, as the teacher".format(*shapes["teacher"]),
            received="{} -> {}".format(*shapes["student"]),
        )
    of_teacher = {id(variable) for variable in teacher.variables}
    if shared := [v.path for v in student.trainable_variables if id(v) in of_teacher]:
        raise TrainingError(
            f"student and teacher share trainable weights: {', '.join(shared[:4])}",
            expected="a teacher that does not change",
            fix="save the student, and use what keras.models.load_model returns",
        )


def _scale(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and deviation that scale a teacher's features (photos, features)."""
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    # Avoid amplifying rounding errors of constant features, and a division by zero.
    rounding = 1e-4 * np.abs(mean).max() or 1.0
    return mean, deviation + _FLOOR * deviation.mean() + rounding


def _regression(features: np.ndarray, targets: np.ndarray, variance: float) -> keras.layers.Dense:
    """Return P, initialized as the ridge regression of targets on features, both (photos, ...).

    Features that vary less than the teacher's (mean variance `variance`) come from a network that
    has learned little. Amplifying them would make training diverge, so P starts near 0 for them.
    """
    sizes = features.shape[1], targets.shape[1]
    if sizes[0] * sizes[1] > _MOST_WEIGHTS:
        raise TrainingError(
            f"{sizes[0]} and {sizes[1]} features are too many to compare",
            expected=f"a product of at most {_MOST_WEIGHTS}",
            fix="name a layer with fewer features, such as after pooling, or set feature_weight=0",
        )
    linear = Ridge(_PENALTY * len(features) * max(features.var(axis=0).mean(), variance))
    linear.fit(features, targets)
    layer = keras.layers.Dense(sizes[1], name="projection", dtype="float32")
    layer.build((None, sizes[0]))
    layer.set_weights([linear.coef_.T, linear.intercept_])
    return layer
