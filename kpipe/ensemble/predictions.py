"""What the members of an ensemble predict for the same photos, as arrays.

probabilities := float64 (members, photos, classes), each row with a sum of 1
labels        := int64 (photos,), class indices

`select`, `fit_weights` and `assess` take these arrays, so that each member predicts once for all of
them. `predict_members` makes them from models and a dataset.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from kpipe.ensemble.joining import class_orders, join_members
from kpipe.ensemble.members import check_members, entry_shape
from kpipe.errors import TrainingError
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["check_predictions", "predict_members"]


@names_wrong_kinds
def predict_members(
    models: Sequence[keras.Model],
    data: tf.data.Dataset,
    *,
    classes: Sequence[Sequence[str]] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the members' predictions and the labels, in the order of the data.

    Args:
        models: two or more classifiers, as for `average`.
        data: finite batches of images, at the size of the largest member, and integer labels.
        classes: as for `average`.

    Returns:
        Probabilities float64 (members, photos, classes), and labels int64 (photos,). The
        probabilities of one sigmoid unit become those of two classes.

    Raises:
        TrainingError: the members do not agree, a member does not predict probabilities, or the
            data has other images or no class indices.

    Example:
        >>> import keras
        >>> from kpipe.data import dataset, from_folder, split
        >>> from kpipe.ensemble import fit_weights, predict_members, select
        >>> members = [
        ...     keras.Sequential([
        ...         keras.Input((32, 32, 3)),
        ...         keras.layers.GlobalAveragePooling2D(),
        ...         keras.layers.Rescaling(1 / 255),
        ...         keras.layers.Dense(3, activation="softmax"),
        ...     ])
        ...     for _ in range(2)
        ... ]
        >>> photos = split(from_folder("photos"))
        >>> data = dataset(photos, "validation", image_size=32)
        >>> probabilities, labels = predict_members(members, data)
        >>> probabilities.shape == (2, len(labels), 3)
        True
        >>> weights = select(probabilities, labels)
    """
    members = check_members(models)
    pixels, outputs = join_members(members, class_orders(members, classes))
    joined = keras.Model(pixels, outputs)
    found: list[list[np.ndarray]] = []
    labels: list[Any] = []
    expected = entry_shape(members)
    for batch in data:
        shape = tuple(getattr(batch[0], "shape", ())) if isinstance(batch, tuple) else ()
        fits = len(shape) == len(expected) + 1 and all(
            size is None or size == given for size, given in zip(expected, shape[1:], strict=True)
        )
        if not fits or len(batch) < 2:
            raise TrainingError(
                "data= does not fit the members",
                expected=f"batches of (images, labels), images of the shape {expected}",
                received=f"images of the shape {shape[1:]}" if shape else type(batch).__name__,
            )
        found.append([keras.ops.convert_to_numpy(x) for x in joined(batch[0], training=False)])
        labels.append(np.asarray(batch[1]))
    if not found:
        raise TrainingError("data= has no photos", expected="1 or more")
    each = [np.concatenate(of_one) for of_one in zip(*found, strict=True)]
    return check_predictions(each, np.concatenate(labels))


def check_predictions(probabilities: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return the arrays of the module's docstring, or raise a TrainingError.

    The probabilities of one sigmoid unit become those of two classes.
    """
    try:
        array, targets = np.asarray(probabilities, float), np.asarray(labels)
    except (TypeError, ValueError) as error:
        raise TrainingError(
            "probabilities= or labels= is no array of numbers", received=str(error)
        ) from error
    if array.ndim != 3 or 0 in array.shape or targets.shape != array.shape[1:2]:
        raise TrainingError(
            "the shapes of probabilities= and labels= do not fit",
            expected="(members, photos, classes) and (photos,), with at least one of each",
            received=f"{array.shape} and {targets.shape}",
        )
    for number, rows in enumerate(array, 1):
        if not np.isfinite(rows).all():
            raise TrainingError(
                f"member {number} of the ensemble predicts NaN or infinity",
                received=f"for {(~np.isfinite(rows)).any(axis=1).sum():,} of {len(rows):,} photos",
                fix="leave it out, or train it again with a lower learning rate",
            )
    if array.shape[2] == 1:
        array = np.concatenate([1 - array, array], axis=2)
    for number, rows in enumerate(array, 1):
        if (rows < 0).any() or not np.allclose(rows.sum(axis=1), 1, atol=0.02):
            raise TrainingError(
                f"member {number} of the ensemble does not predict probabilities of classes that "
                "exclude each other",
                expected="rows of 0 or more with a sum of 1",
                received=f"{rows.min():.3g} to {rows.max():.3g}, sums of "
                f"{rows.sum(axis=1).min():.3g} to {rows.sum(axis=1).max():.3g}",
            )
    if targets.dtype.kind not in "iu" or not ((targets >= 0) & (targets < array.shape[2])).all():
        raise TrainingError(
            "labels= is invalid",
            expected=f"class indices, whole numbers from 0 to {array.shape[2] - 1}",
            received=f"{targets.dtype}: {', '.join(map(str, np.unique(targets)[:5]))}",
        )
    return array, targets.astype(np.int64)
