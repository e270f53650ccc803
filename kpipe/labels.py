"""Whole labels, class 0 to the number of classes less one, and what each class weighs in a loss."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from kpipe.errors import KpipeError

__all__ = ["all_class_weights", "labels_in_range"]

# TensorFlow has one message for the cross-entropy, and one for the operations that stand for it
# where those of a training are to be deterministic.
_BEYOND = (
    r"a label value of (-?\d+) which is outside the valid range",
    r"SparseSoftmaxCrossEntropyWithLogits.*indices\[\d+\] = (-?\d+) is not in \[0,",
)


def all_class_weights(
    weights: Mapping[int, float] | None, classes: int, error: type[KpipeError]
) -> dict[int, float] | None:
    """A factor for each class, 1 where none is given; Keras needs one for the last class at least.

    Args:
        weights: class index -> factor, None for none.
        classes: how many answers the model has.
        error: what to raise for a class that it has no answer for.
    """
    if not weights:
        return None
    if unknown := sorted(label for label in weights if not 0 <= label < classes):
        raise error(
            f"class_weight names classes without an answer: {', '.join(map(str, unknown))}",
            expected=f"0 to {classes - 1}",
            fix="count classes from 0, or give the model an answer for each",
        )
    return {label: float(weights.get(label, 1.0)) for label in range(classes)}


@contextmanager
def labels_in_range(classes: int, error: type[KpipeError]) -> Iterator[None]:
    """Raises `error` for a label without an answer, where TensorFlow's cross-entropy meets one."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.InvalidArgumentError as problem:
        found = [
            match[1] for match in (re.search(b, str(problem), re.DOTALL) for b in _BEYOND) if match
        ]
        if not found:
            raise
        raise error(
            f"the model has no answer for label {found[0]}",
            expected=f"labels from 0 to {classes - 1}",
            fix="count classes from 0, or give the model an answer for each",
        ) from problem
