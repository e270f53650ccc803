"""Check integer labels, 0 to classes - 1, and the weight of each class in the loss."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral

from kpipe.errors import KpipeError

__all__ = [
    "complete_class_weights",
    "refuse_class_weights",
    "translate_label_errors",
]


def refuse_class_weights(weights: Mapping[int, float] | None, error: type[KpipeError]) -> None:
    """Raise `error` for invalid class indices and for weights that are negative or not finite.

    Args:
        weights: class index -> weight, or None.
        error: the exception to raise.
    """
    wrong = [
        f"class {label}: {weight}"
        for label, weight in (weights or {}).items()
        if not isinstance(label, Integral) or label < 0 or not 0 <= weight < math.inf
    ]
    if wrong:
        raise error(
            f"class_weight is invalid for {', '.join(wrong)}",
            expected="{class index: finite weight of 0 or more}",
        )


def complete_class_weights(
    weights: Mapping[int, float] | None, classes: int | None, error: type[KpipeError]
) -> dict[int, float] | None:
    """Return a weight for every class, 1 by default; Keras needs one for the last class at least.

    Args:
        weights: class index -> weight, or None.
        classes: the number of outputs of the model; None if unknown.
        error: the exception to raise for an unknown class or an invalid weight.

    Example:
        >>> from kpipe.errors import TrainingError
        >>> from kpipe.class_indices import complete_class_weights
        >>> complete_class_weights({2: 0.5}, 4, TrainingError)
        {0: 1.0, 1: 1.0, 2: 0.5, 3: 1.0}
    """
    refuse_class_weights(weights, error)
    if not weights:
        return None
    if classes is None:
        return {int(label): float(weight) for label, weight in weights.items()}
    if unknown := sorted(int(label) for label in weights if label >= classes):
        raise error(
            f"class_weight names classes without an output: {', '.join(map(str, unknown))}",
            expected=f"0 to {classes - 1}",
            fix="number classes from 0, or give the model an output for each",
        )
    return {label: float(weights.get(label, 1.0)) for label in range(classes)}


@contextmanager
def translate_label_errors(classes: int | None, error: type[KpipeError]) -> Iterator[None]:
    """Raise `error` if TensorFlow meets an out-of-range label in the block.

    Args:
        classes: the number of outputs of the model; None if unknown.
        error: the exception to raise.
    """
    import tensorflow as tf

    try:
        yield
    except tf.errors.InvalidArgumentError as problem:
        # From the cross-entropy, or from the lookup of a label's weight.
        messages = (
            r"a label value of (-?\d+) which is outside the valid range",
            rf"GatherV2.*indices\[\d+\] = (-?\d+) is not in \[0, {classes}\)",
        )
        matches = [re.search(message, str(problem), re.DOTALL) for message in messages]
        label = next((match[1] for match in matches if match), None)
        if label is None:
            raise
        raise error(
            f"the model has no output for label {label}",
            expected="labels from 0 up" if classes is None else f"labels from 0 to {classes - 1}",
            fix="number classes from 0, or give the model an output for each",
        ) from problem
