"""What a smaller network learns from one that knows: its answers, and what it sees.

    label' = (1 - share) * label + share * teacher(image)                              soft_labels

    loss   = loss(label, answer)                                                       taught
           + answers * crossentropy(teacher(image), answer)
           + features * mean((targets - P(features of the student))^2)
    targets = (features of the teacher - their mean) / their deviation, both of a sample

The teacher sees the very image that the student sees, changed in the same way, and its answer is
all the student is asked for where the share is 1 (Beyer et al. 2022, arXiv 2106.05237). The soft
answers are those of Hinton et al. 2015 (arXiv 1503.02531) at a temperature of 1.

Features are what goes into the classification layer (FitNets: Romero et al. 2015, arXiv 1412.6550).
P is a linear map, so the student's may be fewer and in another order; it begins as the ridge
regression of the targets on them, learns with the student and is left behind. An answer is a number
for each class, features are a thousand: a network that lost most of its filters comes nearer to
what it was in as many epochs.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from sklearn.linear_model import Ridge

from kpipe.errors import TrainingError
from kpipe.train.blocks import Step, read_steps
from kpipe.train.numbers import refuse_number
from kpipe.weights import refuse_unfinished_weights

__all__ = ["soft_labels", "taught"]

_FLOOR = 0.05  # of the mean deviation, added: what hardly varies must not weigh as the rest does
_PENALTY = 0.3  # of the regression: for each photo, times the mean variance of the features


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


def taught(
    student: keras.Model,
    teacher: keras.Model,
    sample: Iterable[Any],
    *,
    answers: float = 4.0,
    features: float = 40.0,
    layer: str | None = None,
) -> keras.Model:
    """A twin of a student, in whose training a teacher has a say.

    ```
    twin = taught(small, whole, batches.take(50))
    twin.compile("adam", "sparse_categorical_crossentropy")
    twin.fit(batches, epochs=12)  # it is small that learns: save small, not the twin
    ```

    The twin is made of the student's layers. In training it adds what the teacher says of the same
    images to the loss; in evaluation and inference it is the student.

    Args:
        student: images -> probabilities (batch, classes).
        teacher: the same, larger; in inference, not trained.
        sample: batches of images, or tuples that begin with images: for the mean and deviation of
            the targets, and for P at first. Some hundred photos are enough.
        answers: how much the teacher's answers weigh beside the labels, 0 or more.
        features: how much its features weigh, 0 or more; with 0 the two need not have any.
        layer: the name of a layer in both models whose input (batch, ..., features) is compared,
            its mean where there are places between; None is the last Dense. Of Dropout before it,
            what goes in.

    Raises:
        TrainingError: a weight in the loss that is none, weights of a model that are NaN, a sample
            without batches or without end, a model that is no graph from one input to one output,
            other classes than the teacher's, a layer that is not there or has not one tensor for
            its input, or a teacher whose features do not vary.
    """
    for name, weight in (("answers", answers), ("features", features)):
        refuse_number(f"{name}, a weight in the loss,", weight, 0)
    for model in (student, teacher):
        refuse_unfinished_weights(model, TrainingError)
    ends = [_ends(model, role) for model, role in ((student, "student"), (teacher, "teacher"))]
    (pixels, own), (shown, known) = ends
    if own.shape[1:] != known.shape[1:]:
        raise TrainingError(
            "student and teacher answer differently",
            expected=f"{tuple(known.shape)}, as the teacher",
            received=str(tuple(own.shape)),
        )
    told, made = [known], [own]
    if features:
        there, here = _features(teacher, layer, "teacher"), _features(student, layer, "student")
        theirs, ours = _seen(sample, keras.Model(shown, there), keras.Model(pixels, here))
        standard = _standard(theirs)
        told.append(standard(there))
        made.append(_projection(here, ours, np.array(standard(theirs))))
    guide = keras.Model(shown, told)
    return keras.Model(pixels, _Taught(guide, answers, features)([pixels, *made]))


class _Taught(keras.layers.Layer):
    """(images, answers, features) -> answers; in training, adds what a guide says to the loss.

    Args:
        guide: images -> (answers, features).
        weights: of its answers, of its features.
    """

    def __init__(self, guide: keras.Model, *weights: float) -> None:
        super().__init__(name="taught")
        # A partial hides the guide: its weights are none of this layer's.
        self._ask, self._factors = partial(guide, training=False), weights

    def call(self, inputs: list[Any], training: bool | None = None) -> Any:
        images, answers, *features = inputs
        if training:
            said = keras.tree.flatten(self._ask(images))
            known, *targets = map(keras.ops.stop_gradient, said)
            losses = [keras.losses.categorical_crossentropy(known, answers)]
            losses += map(keras.losses.mean_squared_error, targets, features)
            for factor, loss in zip(self._factors, losses, strict=False):
                self.add_loss(factor * keras.ops.mean(loss))
        return answers

    def compute_output_shape(self, shapes: list[Any]) -> Any:
        return shapes[1]

    def get_config(self) -> dict[str, Any]:
        raise TrainingError(
            "a twin of taught() holds its teacher, and is not for keeping",
            fix="save the student: its weights are those that learned",
        )


def _ends(model: keras.Model, role: str) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    read_steps(model)  # refuses what has no graph
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise TrainingError(
            f"the {role} is no model from images to answers",
            expected="one input, one output",
            received=f"{len(model.inputs)} inputs, {len(model.outputs)} outputs",
        )
    return model.inputs[0], model.outputs[0]


def _seen(sample: Iterable[Any], *eyes: keras.Model) -> list[np.ndarray]:
    """What each model makes of the images of all batches."""
    if isinstance(sample, tf.data.Dataset) and sample.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise TrainingError(
            "the sample has no end",
            expected="some hundred photos",
            fix="give taught() batches.take(50)",
        )
    rows: list[list[np.ndarray]] = []
    for batch in sample:
        images = batch[0] if isinstance(batch, tuple | list) else batch
        made = (eye(images, training=False) for eye in eyes)
        rows.append([keras.ops.convert_to_numpy(x) for x in made])
    if not rows:
        raise TrainingError("the sample is empty", expected="some batches of photos")
    return [np.concatenate(side) for side in zip(*rows, strict=True)]


def _standard(features: np.ndarray) -> keras.layers.Normalization:
    """What makes targets of a teacher's features (photos, features)."""
    deviation = features.std(axis=0)
    if not deviation.any():
        raise TrainingError(
            "the teacher's features are the same for every photo",
            expected="features that vary",
            received=f"{features.shape[1]} constants in {len(features)} photos",
            fix="name another layer",
        )
    deviation += _FLOOR * deviation.mean()
    return keras.layers.Normalization(mean=features.mean(axis=0), variance=deviation**2)


def _projection(
    tensor: keras.KerasTensor, features: np.ndarray, targets: np.ndarray
) -> keras.KerasTensor:
    """P of the student's features, begun as the regression of targets on features (photos, ...)."""
    linear = Ridge(_PENALTY * len(features) * features.var(axis=0).mean() or 1.0)
    linear.fit(features, targets)
    layer = keras.layers.Dense(targets.shape[1], name="projection_of_features")
    projected = layer(tensor)
    layer.set_weights([linear.coef_.T, linear.intercept_])
    return projected


def _features(model: keras.Model, name: str | None, role: str) -> keras.KerasTensor:
    """(batch, features) in the graph of the model."""
    steps = read_steps(model)

    def meant(step: Step) -> bool:
        if name is None:
            return isinstance(step.operation, keras.layers.Dense)
        return step.operation.name == name

    if not (found := [step for step in steps if meant(step)]):
        raise TrainingError(
            f"the {role} has no {'Dense layer' if name is None else f'layer {name!r}'}",
            expected="layer=, the name of one whose input are features",
            received=", ".join(str(step.operation.name) for step in steps[-5:]) + " at its end",
        )
    makers = {number: step for step in steps for number in step.makes}
    before = makers[found[-1].reads[0]]
    while isinstance(before.operation, keras.layers.Dropout):
        before = makers[before.reads[0]]
    tensor = before.tensor
    if tensor is None or len(found[-1].reads) != 1 or len(tensor.shape) < 2:
        raise TrainingError(
            f"what goes into {found[-1].operation.name!r} of the {role} cannot be compared",
            expected="one tensor (batch, ..., features) that no nested model hides",
            received=f"{len(found[-1].reads)} tensors, the first of {before.operation.name!r}",
            fix="name another layer",
        )
    places = tuple(range(1, len(tensor.shape) - 1))
    return keras.ops.mean(tensor, axis=places) if places else tensor
