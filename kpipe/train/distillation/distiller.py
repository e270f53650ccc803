"""A smaller network trained with one that knows: its answers, and what it sees.

    loss    = (loss(label, answer)
               + soft_target_weight * crossentropy(teacher(image), answer)
               + feature_weight * mean((targets - P(features of the student))^2))
              / (1 + soft_target_weight + feature_weight)
    targets = (features of the teacher - mean) / (deviation + 5 % of the mean deviation)

The teacher sees the very image that the student is given. Its answers are those of Hinton et al.
2015 (arXiv 1503.02531) at a temperature of 1. Features are what goes into the classification layer
(FitNets: Romero et al. 2015, arXiv 1412.6550). P is a linear map, so the student's may be fewer and
in another order; it begins as the ridge regression of the targets on them, learns with the student
and is left behind. An answer is a number for each class, features are a thousand: a network that
lost most of its filters comes nearer to what it was in as many epochs.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import keras
import numpy as np
from sklearn.linear_model import Ridge

from kpipe.errors import TrainingError
from kpipe.train.argument_checks import refuse_number
from kpipe.train.transfer.blocks import LayerCall, read_steps
from kpipe.weights import refuse_non_finite_weights

__all__ = ["Distiller"]

_FLOOR = 0.05  # of the mean deviation, added: what hardly varies must not weigh as the rest does
_PENALTY = 0.3  # of the regression: for each photo, times the larger mean variance of features
_MOST_PHOTOS = 10_000  # of a sample; more are one that does not end
_MOST_WEIGHTS = 2**24  # of P


class Distiller(keras.Model):
    """Trains a student, with a teacher's answers and features in the loss.

    ```
    distiller = Distiller(small, whole, batches.take(50))
    distiller.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    distiller.fit(batches, epochs=12)  # it is small that learns: save small
    ```

    In evaluation and inference it is the student. The teacher's part of the loss is that of
    training alone, weighted by example as the rest of it; "loss" is the mean of all parts,
    "val_loss" the student's own.

    Args:
        student: images -> probabilities (batch, classes), a graph from one input to one output. The
            defaults suit one that was cut from a teacher whose every layer was trained.
        teacher: the same, larger; in inference, not trained.
        sample: batches of images, or tuples that begin with images, 10,000 photos at most: for the
            mean and deviation of the targets, and where P begins. Some hundred are enough.
        soft_target_weight: how much the teacher's answers weigh beside the labels, 0 or more.
        feature_weight: how much its features weigh, 0 or more; with 0 the two need not have any.
        layer: the name of a layer in both models whose input (batch, ..., features) is compared,
            its mean where there are places between; None is the last Dense, if nothing with weights
            comes after it. Of Dropout before it, what goes in.

    Raises:
        TrainingError: a weight in the loss that is none, weights that are NaN or that both models
            share, models that are no graph from one input to one output, of other images, other
            classes or without probabilities, a sample that is too small, does not end or does not
            fit, or a layer that is not there or whose input cannot be compared.
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model,
        sample: Iterable[Any],
        *,
        soft_target_weight: float = 4.0,
        feature_weight: float = 40.0,
        layer: str | None = None,
    ) -> None:
        # The student casts for itself, and the teacher must see what it is given.
        super().__init__(name="distiller", dtype="float32", autocast=False)
        for name, weight in (
            ("soft_target_weight", soft_target_weight),
            ("feature_weight", feature_weight),
        ):
            refuse_number(f"{name}, a weight in the loss,", weight, 0)
        _check(student, teacher)
        self.output_shape = student.output_shape
        knowing = _with_features(teacher, feature_weight, layer, "teacher")
        learning = _with_features(student, feature_weight, layer, "student")
        known, own = _seen(sample, knowing, learning)
        self._student, self._weights = learning, (soft_target_weight, feature_weight)
        # A partial hides the teacher: its weights are none of the distiller's.
        self._ask = partial(knowing, training=False)
        if feature_weight:
            self._mean, self._deviation = _scale(known)
            targets = (known - self._mean) / self._deviation
            self._projection = _regression(own, targets, known.var(axis=0).mean())
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Probabilities; in training [probabilities, P of the features where they count]."""
        answers, *features = keras.tree.flatten(self._student(inputs, training=training))
        if not training:
            return answers
        return [answers, *(self._projection(_averaged(maps)) for maps in features)]

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """See the module; `y_pred` is what `call` gave."""
        own = super().compute_loss(x, y, _first(y_pred), sample_weight, training)
        if not training:
            return own
        pairs = zip(self._said(x), y_pred, strict=True)
        losses = (keras.losses.CategoricalCrossentropy(), keras.losses.MeanSquaredError())
        added = (
            weight * loss(targets, made, sample_weight)
            for weight, loss, (targets, made) in zip(self._weights, losses, pairs, strict=False)
        )
        return sum(added, own) / (1 + sum(self._weights))

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Of the student's answers."""
        return super().compute_metrics(x, y, _first(y_pred), sample_weight)

    def _said(self, images: Any) -> list[Any]:
        """What the teacher says of images: answers, and targets where features count."""
        said = map(keras.ops.stop_gradient, keras.tree.flatten(self._ask(images)))
        answers, *features = (keras.ops.cast(x, "float32") for x in said)
        return [answers, *((_averaged(x) - self._mean) / self._deviation for x in features)]

    def get_config(self) -> dict[str, Any]:
        raise TrainingError(
            "a Distiller holds its teacher, and is not for keeping",
            fix="save the student: its weights are those that learned; "
            "ModelCheckpoint(save_weights_only=True) keeps them on the way",
        )


def _first(made: Any) -> Any:
    return made[0] if isinstance(made, list | tuple) else made


def _averaged(maps: Any) -> Any:
    """(batch, ..., features) -> (batch, features)."""
    places = tuple(range(1, len(maps.shape) - 1))
    return keras.ops.mean(maps, axis=places) if places else maps


def _check(student: keras.Model, teacher: keras.Model) -> None:
    """Raises a TrainingError for models of which one cannot teach the other."""
    ends = {}
    for role, model in (("student", student), ("teacher", teacher)):
        read_steps(model)  # refuses what has no graph
        refuse_non_finite_weights(model, TrainingError)
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise TrainingError(
                f"the {role} is no model from images to answers",
                expected="one input, one output",
                received=f"{len(model.inputs)} inputs, {len(model.outputs)} outputs",
            )
        ends[role] = tuple(x.shape[1:] for x in (*model.inputs, *model.outputs))
    if ends["student"] != ends["teacher"]:
        raise TrainingError(
            "student and teacher see or answer differently",
            expected="{} -> {}, as the teacher".format(*ends["teacher"]),
            received="{} -> {}".format(*ends["student"]),
        )
    known = {id(variable) for variable in teacher.variables}
    if common := [v.path for v in student.trainable_variables if id(v) in known]:
        raise TrainingError(
            f"student and teacher share weights that learn: {', '.join(common[:4])}",
            expected="a teacher that stays as it is",
            fix="give the student layers of its own: keras.models.clone_model and set_weights",
        )


def _with_features(
    model: keras.Model, features: float, layer: str | None, role: str
) -> keras.Model:
    """Images -> answers, and the features that go into the layer, where they count."""
    if not features:
        return keras.Model(model.inputs[0], [model.outputs[0]])
    return keras.Model(model.inputs[0], [model.outputs[0], _features(model, layer, role)])


def _features(model: keras.Model, name: str | None, role: str) -> keras.KerasTensor:
    """(batch, ..., features) in the graph of the model."""
    steps = read_steps(model)
    fix = "name another layer, or leave features out with a weight of 0"

    def meant(step: LayerCall) -> bool:
        if name is None:
            return isinstance(step.operation, keras.layers.Dense)
        return step.operation.name == name

    places = [place for place, step in enumerate(steps) if meant(step)]
    if not places or (name is None and any(step.weighted for step in steps[places[-1] + 1 :])):
        wanted = "Dense layer at its end" if name is None else f"layer {name!r} in its graph"
        raise TrainingError(
            f"the {role} has no {wanted}",
            expected="layer=, the name of one whose input are features",
            received=", ".join(str(step.operation.name) for step in steps[-5:]) + " at its end",
            fix=fix,
        )
    found = steps[places[-1]]
    makers = {number: step for step in steps for number in step.makes}
    before = makers[found.reads[0]] if found.reads else found
    while isinstance(before.operation, keras.layers.Dropout):
        before = makers[before.reads[0]]
    tensor = before.tensor
    if len(found.reads) != 1 or len(before.makes) != 1 or tensor is None or len(tensor.shape) < 2:
        raise TrainingError(
            f"what goes into {found.operation.name!r} of the {role} cannot be compared",
            expected="one tensor (batch, ..., features) that no nested model hides",
            received=f"{len(found.reads)} tensors, of {before.operation.name!r}",
            fix=fix,
        )
    return tensor


def _seen(sample: Iterable[Any], *models: keras.Model) -> list[np.ndarray]:
    """The last of what each model makes of the images of all batches, (photos, features)."""
    rank = len(models[0].inputs[0].shape)
    rows: list[list[np.ndarray]] = []
    photos = 0
    for batch in sample:
        images = batch[0] if isinstance(batch, tuple | list) else batch
        if len(images.shape) != rank:
            raise TrainingError(
                "the sample is not of batches",
                expected=f"images of {rank} axes, or tuples that begin with them",
                received=f"shape {tuple(images.shape)}",
                fix="give batches.take(50), or [images]",
            )
        photos += len(images)
        if photos > _MOST_PHOTOS:
            raise TrainingError(
                "the sample does not end",
                expected=f"some hundred photos, {_MOST_PHOTOS} at most",
                fix="give batches.take(50)",
            )
        made = [keras.tree.flatten(model(images, training=False)) for model in models]
        for answers, *_ in made:
            _refuse_others(keras.ops.convert_to_numpy(keras.ops.cast(answers, "float32")))
        last = (keras.ops.cast(_averaged(found[-1]), "float32") for found in made)
        rows.append([keras.ops.convert_to_numpy(x) for x in last])
    if photos < 2:
        raise TrainingError(
            "the sample is too small", expected="some hundred photos", received=str(photos)
        )
    return [np.concatenate(side) for side in zip(*rows, strict=True)]


def _refuse_others(answers: np.ndarray) -> None:
    """Raises a TrainingError for answers (..., classes) that are no probabilities."""
    sums = answers.sum(axis=-1)
    if answers.shape[-1] > 1 and (answers >= 0).all() and np.allclose(sums, 1, atol=0.02):
        return
    raise TrainingError(
        "answers of student and teacher must be probabilities, as softmax gives them",
        expected="2 classes or more, each 0 or more, 1 in sum",
        received=f"{answers.shape[-1]} classes, {answers.min():.3g} to {answers.max():.3g}, "
        f"{sums.min():.3g} to {sums.max():.3g} in sum",
        fix="end both in a softmax, and look for broken images in the sample",
    )


def _scale(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation that make targets of a teacher's features (photos, features)."""
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    # What does not vary but by rounding must not be made larger, nor divide by zero.
    rounding = 1e-4 * np.abs(mean).max() or 1.0
    return mean, deviation + _FLOOR * deviation.mean() + rounding


def _regression(features: np.ndarray, targets: np.ndarray, variance: float) -> keras.layers.Dense:
    """P, begun as the regression of targets on features, both (photos, ...).

    Features that vary less than the teacher's, whose mean variance is given, are those of a network
    that has learned little: made larger they would drive it apart, so P begins near 0 there.
    """
    sizes = features.shape[1], targets.shape[1]
    if sizes[0] * sizes[1] > _MOST_WEIGHTS:
        raise TrainingError(
            f"{sizes[0]} and {sizes[1]} features are too many to compare",
            expected=f"a product of {_MOST_WEIGHTS} at most",
            fix="name a layer with fewer, as behind a pooling, or give features a weight of 0",
        )
    linear = Ridge(_PENALTY * len(features) * max(features.var(axis=0).mean(), variance))
    linear.fit(features, targets)
    layer = keras.layers.Dense(sizes[1], name="projection", dtype="float32")
    layer.build((None, sizes[0]))
    layer.set_weights([linear.coef_.T, linear.intercept_])
    return layer
