"""Classifiers combined into one Keras graph.

    average := sum of weight * probabilities, weights summing to 1
    vote    := (1 - e) * fraction of members that vote for the class + e * average

Members are copied, each as a nested model with a new name ("member_1", ...), so that layers of the
same name do not clash and the originals do not change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras

from kpipe.errors import TrainingError

__all__ = ["average", "vote"]

# Small enough to keep the fractions readable, large enough to be exact in float32.
_TIE_BREAK = 0.01


def average(models: Sequence[keras.Model], weights: Sequence[float] | None = None) -> keras.Model:
    """Return a model of the weighted mean of the members' probabilities.

    Args:
        models: two or more classifiers of the same input and classes, which map images
            (batch, height, width, 3) to probabilities (batch, classes).
        weights: one weight of 0 or more for each member, normalized to sum to 1. None for equal
            weights.

    Returns:
        A new model from the same input to probabilities (batch, classes).

    Raises:
        TrainingError: the members do not agree, or the weights are invalid.

    Example:
        >>> import keras
        >>> from kpipe.ensemble import average
        >>> inputs = keras.Input((8, 8, 3))
        >>> colors = keras.layers.GlobalAveragePooling2D()(inputs)
        >>> members = [keras.Model(inputs, colors * factor) for factor in (0.0, 1.0)]
        >>> model = average(members, weights=[1, 3])
        >>> model(keras.ops.ones((1, 8, 8, 3))).numpy()
        array([[0.75, 0.75, 0.75]], dtype=float32)
    """
    pixels, probabilities = _copy_members(models)
    weights = _normalize(weights, len(probabilities))
    mean = _weighted_sum(probabilities, weights)
    return keras.Model(pixels, mean, name="average")


def vote(models: Sequence[keras.Model]) -> keras.Model:
    """Return a model of the fraction of members that vote for each class.

    A member votes for its most probable class, and splits its vote between equally probable ones.
    To break ties, the fractions are mixed with 1 % of the mean probabilities (less from 50 members
    on, where 1 % could outweigh a vote). Each output is within 0.01 of the fraction.

    Args:
        models: two or more classifiers, as for `average`.

    Returns:
        A new model from the same input to (batch, classes), each row summing to 1.

    Raises:
        TrainingError: the members do not agree.

    Example:
        >>> import keras
        >>> from kpipe.ensemble import vote
        >>> inputs = keras.Input((1, 1, 3))
        >>> pooled = keras.layers.GlobalAveragePooling2D()(inputs)
        >>> votes = vote([keras.Model(inputs, pooled) for _ in range(3)])
        >>> votes(keras.ops.reshape([0.2, 0.7, 0.1], (1, 1, 1, 3))).numpy().round(3)
        array([[0.002, 0.997, 0.001]], dtype=float32)
    """
    pixels, probabilities = _copy_members(models)
    count = len(probabilities)
    ballots = [_ballot(member) for member in probabilities]
    tie_break = min(_TIE_BREAK, 1 / (2 * (count + 1)))
    fractions = [(1 - tie_break) / count] * count
    means = [tie_break / count] * count
    outputs = _weighted_sum([*ballots, *probabilities], [*fractions, *means])
    return keras.Model(pixels, outputs, name="vote")


def _copy_members(
    models: Sequence[keras.Model],
) -> tuple[keras.KerasTensor, list[keras.KerasTensor]]:
    """Return one input, and the probabilities that a copy of each member returns for it."""
    if len(models) < 2:
        raise TrainingError(
            "an ensemble needs at least two members",
            expected="2 or more models",
            received=str(len(models)),
        )
    shapes = [f"{model.input_shape} -> {model.output_shape}" for model in models]
    if len(set(shapes)) > 1:
        raise TrainingError(
            "the members of an ensemble do not agree",
            expected="the same input and the same number of classes for all",
            received="; ".join(
                f"{number} {model.name!r}: {shape}"
                for number, (model, shape) in enumerate(zip(models, shapes, strict=True), 1)
            ),
            fix="train the members with one image size and one list of classes",
        )
    pixels = keras.Input(models[0].input_shape[1:], name="pixels")
    return pixels, [_copy(model, f"member_{n}")(pixels) for n, model in enumerate(models, 1)]


def _copy(model: keras.Model, name: str) -> keras.Model:
    copied = model.__class__.from_config({**model.get_config(), "name": name})
    copied.set_weights(model.get_weights())
    return copied


def _ballot(probabilities: keras.KerasTensor) -> keras.KerasTensor:
    """Return 1 for the most probable class and 0 for the others, (batch, classes)."""
    # Not argmax and one_hot: Keras' argmax uses an operation that TFLite lacks.
    highest = keras.ops.equal(probabilities, keras.ops.max(probabilities, axis=-1, keepdims=True))
    marks = keras.ops.cast(highest, "float32")
    return keras.ops.divide(marks, keras.ops.sum(marks, axis=-1, keepdims=True))


def _normalize(weights: Sequence[float] | None, count: int) -> list[float]:
    factors = [1.0] * count if weights is None else [float(weight) for weight in weights]
    valid = all(math.isfinite(factor) and factor >= 0 for factor in factors)
    if len(factors) != count or not valid or sum(factors) <= 0:
        raise TrainingError(
            "invalid ensemble weights",
            expected=f"{count} finite numbers of 0 or more, not all 0",
            received=str(factors),
        )
    return [factor / sum(factors) for factor in factors]


def _weighted_sum(
    tensors: Sequence[keras.KerasTensor], weights: Sequence[float]
) -> keras.KerasTensor:
    scaled = [
        keras.layers.Rescaling(weight, name=f"weight_{number}")(tensor)
        for number, (tensor, weight) in enumerate(zip(tensors, weights, strict=True), 1)
    ]
    return keras.layers.Add(name="probabilities")(scaled)
