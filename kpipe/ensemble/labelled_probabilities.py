"""Probabilities and true classes of the same images, checked once for every function.

probabilities   float64 (images, classes), each row with a sum of 1
labels          int64 (images,), 0 to classes - 1
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from kpipe.errors import TrainingError

__all__ = ["check_labels", "check_probabilities", "predict_labelled"]

_EXPECTED = "(images, classes), 2 or more classes, each row with a sum of 1"
# float32 softmax over many classes, and uint8 outputs in steps of 1/256.
_SUM_TOLERANCE = 0.02


def check_probabilities(probabilities: Any) -> np.ndarray:
    """Return probabilities as float64 (images, classes), or raise a TrainingError."""
    found = _array(probabilities, "probabilities", _EXPECTED)
    received = f"{found.dtype} {found.shape}"
    sound = (
        found.ndim == 2 and found.shape[0] > 0 and found.shape[1] > 1 and found.dtype.kind in "f"
    )
    if sound:
        found = found.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            sums = found.sum(axis=1)
            sound = bool((found >= 0).all() and np.allclose(sums, 1, atol=_SUM_TOLERANCE))
        received += f", {found.min():.3g} to {found.max():.3g}, sums of {sums.min():.3g} to "
        received += f"{sums.max():.3g}"
    if not sound:
        raise TrainingError(
            "these are not probabilities of exclusive classes",
            expected=_EXPECTED,
            received=received,
            fix="end logits in a softmax",
        )
    return found


def check_labels(labels: Any, probabilities: np.ndarray) -> np.ndarray:
    """Return the labels of checked probabilities as int64 (images,), or raise a TrainingError.

    One-hot labels (images, classes) are accepted.
    """
    images, classes = probabilities.shape
    expected = f"whole numbers from 0 to {classes - 1}, ({images},)"
    found = _array(labels, "labels", expected)
    if found.shape == (images, classes) and np.array_equal(
        np.sort(found, axis=1), np.sort(np.eye(classes)[[0] * images], axis=1)
    ):
        found = found.argmax(axis=1)
    received = f"{found.dtype} {found.shape}"
    sound = found.shape == (images,) and found.dtype.kind in "iu"
    if sound:
        received += f", {found.min()} to {found.max()}"
        sound = found.min() >= 0 and found.max() < classes
    if not sound:
        raise TrainingError(
            "the labels do not fit the probabilities", expected=expected, received=received
        )
    return found.astype(np.int64)


def predict_labelled(model: keras.Model, data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the checked probabilities and labels of batches (images, labels), or of one."""
    single = isinstance(data, tuple) and not any(isinstance(part, tuple) for part in data)
    outputs, labels = [], []
    for batch in [data] if single else data:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise TrainingError(
                "data= does not hold images and labels",
                expected="batches (images, labels), or one such pair of arrays",
                received=type(batch).__name__,
            )
        images = _array(batch[0], "images", "(images, height, width, 3)")
        shape = tuple(model.inputs[0].shape)[1:]
        fits = images.ndim == len(shape) + 1 and images.dtype.kind in "iuf"
        if not fits or any(
            n not in (None, m) for n, m in zip(shape, images.shape[1:], strict=True)
        ):
            raise TrainingError(
                f"the images do not fit the input of {model.name!r}",
                expected=f"numbers (images, {', '.join(map(str, shape))})",
                received=f"{images.dtype} {images.shape}",
            )
        if len(images):
            outputs.append(keras.ops.convert_to_numpy(model.predict_on_batch(images)))
            labels.append(_array(batch[1], "labels", "whole numbers"))
    if not outputs:
        raise TrainingError("data= holds no images", expected="at least one labelled image")
    probabilities = check_probabilities(np.concatenate(outputs))
    if any(part.shape[1:] != labels[0].shape[1:] or not part.ndim for part in labels):
        raise TrainingError(
            "the labels of the batches differ in kind",
            expected="whole numbers (images,)",
            received=", ".join(str(part.shape) for part in labels)[:300],
        )
    return probabilities, check_labels(np.concatenate(labels), probabilities)


def _array(values: Any, what: str, expected: str) -> np.ndarray:
    try:
        found = np.asarray(values)
        if found.dtype != object:
            return found
    except (TypeError, ValueError):  # rows of different lengths
        pass
    raise TrainingError(
        f"the {what} are not an array of numbers", expected=expected, received=repr(values)[:100]
    )
