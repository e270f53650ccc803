"""Classifiers combined into one Keras graph.

    average := sum of weight * probabilities, weights summing to 1
    vote    := (1 - e) * share of members whose largest probability is the class + e * average

Members are copied, each a nested model of its own name ("member_1", ...), so that layers of the
same name do not clash and the originals stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras

from kpipe.errors import TrainingError

__all__ = ["average", "vote"]

# Small enough to leave the shares readable, large enough to be seen in float32.
_TIE_BREAK = 0.01


def average(models: Sequence[keras.Model], weights: Sequence[float] | None = None) -> keras.Model:
    """The weighted mean of the members' probabilities.

    Args:
        models: two or more classifiers of the same input and classes, images
            `(batch, height, width, 3)` to probabilities `(batch, classes)`.
        weights: one factor for each member, not negative; made to sum to 1. None for equal ones.

    Returns:
        A new model from the same input to probabilities `(batch, classes)`.

    Raises:
        TrainingError: members that do not agree, or weights that cannot be used.
    """
    pixels, answers = _members(models)
    mean = _mean(answers, _normalized(weights, len(answers)), "probabilities")
    return keras.Model(pixels, mean, name="average")


def vote(models: Sequence[keras.Model]) -> keras.Model:
    """The share of members that vote for each class; ties go to the higher mean probability.

    A member votes for its most probable class, and splits its vote between equal ones. So that
    ties are broken, the shares are mixed with one percent of the mean probabilities (less from 50
    members on, where a percent could outweigh a vote): each output lies within 0.01 of the share.

    Args:
        models: two or more classifiers, as for `average`.

    Returns:
        A new model from the same input to `(batch, classes)`, each row summing to 1.

    Raises:
        TrainingError: members that do not agree.
    """
    pixels, answers = _members(models)
    count = len(answers)
    votes = [_ballot(answer) for answer in answers]
    tie_break = min(_TIE_BREAK, 1 / (2 * (count + 1)))
    shares = [(1 - tie_break) / count] * count
    means = [tie_break / count] * count
    return keras.Model(
        pixels, _mean([*votes, *answers], [*shares, *means], "probabilities"), name="vote"
    )


def _members(models: Sequence[keras.Model]) -> tuple[keras.KerasTensor, list[keras.KerasTensor]]:
    """One input, and every member's probabilities for it."""
    if len(models) < 2:
        raise TrainingError(
            "an ensemble needs members", expected="2 or more models", received=str(len(models))
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


def _ballot(answer: keras.KerasTensor) -> keras.KerasTensor:
    """1 for the most probable class, 0 for all others: `(batch, classes)` as given."""
    # Not argmax and one_hot: Keras' argmax uses an operation that TFLite lacks.
    highest = keras.ops.equal(answer, keras.ops.max(answer, axis=-1, keepdims=True))
    marks = keras.ops.cast(highest, "float32")
    return keras.ops.divide(marks, keras.ops.sum(marks, axis=-1, keepdims=True))


def _normalized(weights: Sequence[float] | None, count: int) -> list[float]:
    given = [1.0] * count if weights is None else [float(weight) for weight in weights]
    usable = all(math.isfinite(weight) and weight >= 0 for weight in given)
    if len(given) != count or not usable or sum(given) <= 0:
        raise TrainingError(
            "these ensemble weights cannot be used",
            expected=f"{count} numbers, none negative, not all 0",
            received=str(given),
        )
    return [weight / sum(given) for weight in given]


def _mean(
    answers: Sequence[keras.KerasTensor], weights: Sequence[float], name: str
) -> keras.KerasTensor:
    scaled = [
        keras.layers.Rescaling(weight, name=f"weight_{number}")(answer)
        for number, (answer, weight) in enumerate(zip(answers, weights, strict=True), 1)
    ]
    return keras.layers.Add(name=name)(scaled)
