"""Whole labels, class 0 to the number of classes less one, and what each class weighs in a loss."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kpipe.errors import KpipeError

__all__ = ["all_class_weights", "labels_in_range", "refuse_class_weights"]


def refuse_class_weights(weights: Any, error: type[KpipeError]) -> None:
    """Raises `error` for what is no mapping of class indices to factors; None is none."""
    if weights is None:
        return
    if not isinstance(weights, Mapping):
        raise error(
            "class_weight names classes",
            expected="{class index: factor}",
            received=repr(weights),
        )
    wrong = [
        f"the weight of class {label!r}: {factor!r}"
        for label, factor in weights.items()
        if not _is_factor(factor)
    ]
    wrong += [f"class {label!r}" for label in weights if not _is_class(label)]
    if wrong:
        raise error(
            f"class_weight is not right about {', '.join(wrong)}",
            expected="{class index: finite factor of 0 or more}",
        )


def all_class_weights(
    weights: Mapping[int, float] | None, classes: int | None, error: type[KpipeError]
) -> dict[int, float] | None:
    """A factor for each class, 1 where none is given; Keras needs one for the last class at least.

    Args:
        weights: class index -> factor, None for none.
        classes: how many answers the model has; None where that is not known.
        error: what to raise for what is no class of the model, and for what is no factor.
    """
    refuse_class_weights(weights, error)
    if not weights:
        return None
    if classes is None:
        return {int(label): float(factor) for label, factor in weights.items()}
    if unknown := sorted(int(label) for label in weights if label >= classes):
        raise error(
            f"class_weight names classes without an answer: {', '.join(map(str, unknown))}",
            expected=f"0 to {classes - 1}",
            fix="count classes from 0, or give the model an answer for each",
        )
    return {label: float(weights.get(label, 1.0)) for label in range(classes)}


@contextmanager
def labels_in_range(classes: int | None, error: type[KpipeError]) -> Iterator[None]:
    """Raises `error` for a label without an answer, where TensorFlow meets one in a training.

    Args:
        classes: how many answers the model has; None where that is not known.
        error: what to raise.
    """
    import tensorflow as tf

    try:
        yield
    except tf.errors.InvalidArgumentError as problem:
        # In the cross-entropy; and where labels are looked up, as by its deterministic form, for
        # their weight or for their share.
        messages = (
            r"a label value of (-?\d+) which is outside the valid range",
            rf"GatherV2.*indices\[\d+\] = (-?\d+) is not in \[0, {classes}\)",
        )
        met = [re.search(message, str(problem), re.DOTALL) for message in messages]
        label = next((match[1] for match in met if match), None)
        if label is None:
            raise
        raise error(
            f"the model has no answer for label {label}",
            expected="labels from 0 up" if classes is None else f"labels from 0 to {classes - 1}",
            fix="count classes from 0, or give the model an answer for each",
        ) from problem


def _is_class(label: Any) -> bool:
    try:
        return operator.index(label) >= 0 and not isinstance(label, bool)
    except TypeError:
        return False


def _is_factor(factor: Any) -> bool:
    try:
        return 0 <= float(factor) < math.inf
    except (TypeError, ValueError):
        return False
