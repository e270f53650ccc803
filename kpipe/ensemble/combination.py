"""Classifiers combined into one Keras graph.

average           := sum of weight * probabilities, weights summing to 1
geometric average := softmax(sum of weight * log(probabilities))
vote              := (1 - e) * fraction of members that vote for the class + e * average

Members of another input size take the same photo: see `kpipe.ensemble.joining`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras

from kpipe.ensemble.joining import class_orders, join_members
from kpipe.ensemble.members import check_members, refuse_non_finite, refuse_not_exclusive
from kpipe.errors import TrainingError
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["LOWEST", "average", "geometric_average", "tie_break", "vote"]

# Small enough to keep the fractions readable, large enough to be exact in float32.
_TIE_BREAK = 0.01
# What a probability of 0 counts as, so that its logarithm is finite.
LOWEST = 1e-7


@names_wrong_kinds
def average(
    models: Sequence[keras.Model],
    weights: Sequence[float] | None = None,
    *,
    classes: Sequence[Sequence[str]] | None = None,
) -> keras.Model:
    """Return a model of the weighted mean of the members' probabilities.

    Args:
        models: two or more classifiers of the same classes, which map images
            (batch, height, width, 3) to probabilities (batch, classes). Functional or built
            Sequential models; custom layers need not be registered. Their images may differ in
            size: the ensemble takes those of the largest member and resizes them for the others,
            bilinearly, after a mean of blocks of pixels for a member of half the size or less.
        weights: one weight of 0 or more for each member, normalized to sum to 1. None for equal
            weights.
        classes: the class names of each member, in the order of its outputs. The ensemble has the
            order of the first member. None if all members have the same order.

    Returns:
        A new model from images to probabilities (batch, classes).

    Raises:
        TrainingError: the members do not agree or cannot be copied, a member has weights that are
            NaN, or `weights` or `classes` are invalid.

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
    models = check_members(models)
    refuse_non_finite(models)
    factors = _normalize(weights, len(models))
    pixels, probabilities = join_members(models, class_orders(models, classes))
    mean = _weighted_sum(probabilities, factors)
    return keras.Model(pixels, mean, name="average")


@names_wrong_kinds
def geometric_average(
    models: Sequence[keras.Model],
    weights: Sequence[float] | None = None,
    *,
    classes: Sequence[Sequence[str]] | None = None,
) -> keras.Model:
    """Return a model of the normalized product of the members' probabilities.

    Each class gets the product of its probabilities, each to the power of the member's weight,
    divided by the sum over all classes (Genest and Zidek 1986, the logarithmic opinion pool). A
    class that one member excludes is improbable, whatever the others say: a probability below 1e-7
    counts as 1e-7.

    Args:
        models: two or more classifiers, as for `average`. Their outputs are probabilities of
            classes that exclude each other, or one sigmoid unit.
        weights: as for `average`.
        classes: as for `average`.

    Returns:
        A new model from images to probabilities (batch, classes), or (batch, 1) for one unit.

    Raises:
        TrainingError: as for `average`, or a member returns logits or probabilities of several
            labels an image.

    Example:
        >>> import keras
        >>> from kpipe.ensemble import geometric_average
        >>> inputs = keras.Input((1, 1, 3))
        >>> pooled = keras.layers.GlobalAveragePooling2D()(inputs)
        >>> members = [keras.Model(inputs, keras.ops.softmax(pooled * k)) for k in (0.0, 2.0)]
        >>> model = geometric_average(members)
        >>> model(keras.ops.reshape([1.0, 2.0, 1.0], (1, 1, 1, 3))).numpy().round(3)
        array([[0.212, 0.576, 0.212]], dtype=float32)
    """
    models = check_members(models)
    refuse_not_exclusive(models, "has no geometric average")
    factors = _normalize(weights, len(models))
    pixels, probabilities = join_members(models, class_orders(models, classes))
    if probabilities[0].shape[-1] == 1:
        logits = [_log(p) - _log(1 - p) for p in probabilities]
        product = keras.ops.sigmoid(_weighted_sum(logits, factors, "log_odds"))
    else:
        product = keras.ops.softmax(
            _weighted_sum([_log(p) for p in probabilities], factors, "log_product")
        )
    return keras.Model(pixels, product, name="geometric_average")


@names_wrong_kinds
def vote(
    models: Sequence[keras.Model], *, classes: Sequence[Sequence[str]] | None = None
) -> keras.Model:
    """Return a model of the fraction of members that vote for each class.

    A member votes for its most probable class, and splits its vote between equally probable ones.
    A member with one sigmoid unit votes for it above 0.5 and against it below; at 0.5 it gives half
    a vote. Between classes with the same number of votes, the higher mean probability decides: the
    fractions are mixed with 1 % of the mean probabilities (less from 50 members on, where 1 % could
    outweigh a vote). Each output is within 0.01 of the fraction.

    Args:
        models: two or more classifiers, as for `average`.
        classes: as for `average`.

    Returns:
        A new model from images to (batch, classes), each row summing to 1; for one unit, to
        (batch, 1), the fraction of members that vote for it.

    Raises:
        TrainingError: the members do not agree, cannot be copied, or return no probabilities of
            exclusive classes: logits, or probabilities of several labels an image.

    Example:
        >>> import keras
        >>> from kpipe.ensemble import vote
        >>> inputs = keras.Input((1, 1, 3))
        >>> pooled = keras.layers.GlobalAveragePooling2D()(inputs)
        >>> votes = vote([keras.Model(inputs, keras.ops.softmax(pooled)) for _ in range(3)])
        >>> votes(keras.ops.reshape([1.0, 2.0, 1.0], (1, 1, 1, 3))).numpy().round(3)
        array([[0.002, 0.996, 0.002]], dtype=float32)
    """
    models = check_members(models)
    refuse_not_exclusive(models, "has no votes")
    pixels, probabilities = join_members(models, class_orders(models, classes))
    count = len(probabilities)
    ballots = [_ballot(member) for member in probabilities]
    fractions = [(1 - tie_break(count)) / count] * count
    means = [tie_break(count) / count] * count
    outputs = _weighted_sum([*ballots, *probabilities], [*fractions, *means])
    return keras.Model(pixels, outputs, name="vote")


def tie_break(members: int) -> float:
    """Return the fraction of the mean probabilities in a vote of so many members."""
    return min(_TIE_BREAK, 1 / (2 * (members + 1)))


def _log(probabilities: keras.KerasTensor) -> keras.KerasTensor:
    return keras.ops.log(keras.ops.maximum(probabilities, LOWEST))


def _ballot(probabilities: keras.KerasTensor) -> keras.KerasTensor:
    """Return 1 for the most probable class and 0 for the others, (batch, classes)."""
    if probabilities.shape[-1] == 1:
        both = keras.ops.greater(probabilities, 0.5), keras.ops.greater_equal(probabilities, 0.5)
        # 0, 1/2 at the threshold itself, or 1.
        return keras.ops.divide(keras.ops.add(*(keras.ops.cast(x, "float32") for x in both)), 2.0)
    # Not argmax and one_hot: Keras' argmax uses an operation that TFLite lacks.
    highest = keras.ops.equal(probabilities, keras.ops.max(probabilities, axis=-1, keepdims=True))
    marks = keras.ops.cast(highest, "float32")
    return keras.ops.divide(marks, keras.ops.sum(marks, axis=-1, keepdims=True))


def _normalize(weights: Sequence[float] | None, count: int) -> list[float]:
    try:
        factors = [1.0] * count if weights is None else [float(weight) for weight in weights]
    except (TypeError, ValueError):
        factors = []
    valid = all(math.isfinite(factor) and factor >= 0 for factor in factors)
    if len(factors) != count or not valid or not 0 < sum(factors) < math.inf:
        raise TrainingError(
            "invalid ensemble weights",
            expected=f"{count} finite numbers of 0 or more, not all 0",
            received=repr(weights),
        )
    return [factor / sum(factors) for factor in factors]


def _weighted_sum(
    tensors: Sequence[keras.KerasTensor], weights: Sequence[float], name: str = "probabilities"
) -> keras.KerasTensor:
    scaled = [
        keras.layers.Rescaling(weight, name=f"weight_{number}")(tensor)
        for number, (tensor, weight) in enumerate(zip(tensors, weights, strict=True), 1)
    ]
    return keras.layers.Add(name=name)(scaled)
