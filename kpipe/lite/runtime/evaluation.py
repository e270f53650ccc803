"""Accuracy of an exported file, measured by running it.

confusion[i, j] = number of images of class i that the file classifies as j
accuracy = trace / sum        balanced accuracy = mean over classes of diagonal / row sum
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np

from kpipe.errors import ExportError
from kpipe.lite.runtime.interpreter import LiteModel
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["Evaluation", "ImageDifference", "evaluate"]


@dataclass(frozen=True, eq=False)
class ImageDifference:
    """An image on which a file differs from the Keras model that it was converted from.

    Attributes:
        position: position of the image in the data.
        difference: largest absolute difference of a probability.
        label: true class.
        answer: class that the file predicts.
        reference: class that the Keras model predicts.
        image: (height, width, 3), as in the data.

    Example:
        >>> import numpy as np
        >>> from kpipe.lite import ImageDifference
        >>> image = np.zeros((8, 8, 3), "uint8")
        >>> ImageDifference(7, 0.25, label=1, answer=0, reference=1, image=image).to_dict()
        {'position': 7, 'difference': 0.25, 'label': 1, 'answer': 0, 'reference': 1}
    """

    position: int
    difference: float
    label: int
    answer: int
    reference: int
    image: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the image."""
        return {name: value for name, value in vars(self).items() if name != "image"}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Predictions of a file on labelled images, and how accurate they are.

    Attributes:
        images: number of images.
        accuracy: fraction of correct predictions.
        balanced_accuracy: mean recall of the classes that occur.
        agreement: fraction of images with the reference's prediction; None without a reference.
        worst_difference: largest absolute difference from the reference's probabilities.
        confusion: int64 (classes, classes), true class by predicted class.
        probabilities: float32 (images, classes), in the order of the data.
        correct: bool (images,), whether the prediction is correct, in the order of the data.
        differences: the images with the largest differences from the reference, largest first.

    Example:
        >>> import numpy as np
        >>> from keras import Input, Sequential, layers
        >>> from kpipe.lite import convert, evaluate
        >>> net = Sequential([Input((8, 8, 3)), layers.GlobalAveragePooling2D(), layers.Softmax()])
        >>> images = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 3))
        >>> found = evaluate(convert(net), (images, np.zeros(4, int)), reference=net(images))
        >>> found.images, found.agreement
        (4, 1.0)
    """

    images: int
    accuracy: float
    balanced_accuracy: float
    agreement: float | None
    worst_difference: float | None
    confusion: np.ndarray
    probabilities: np.ndarray
    correct: np.ndarray
    differences: tuple[ImageDifference, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without those of each image."""
        each = ("probabilities", "correct")
        values = {name: value for name, value in vars(self).items() if name not in each}
        differences = [difference.to_dict() for difference in self.differences]
        return values | {"confusion": self.confusion.tolist(), "differences": differences}


@names_wrong_kinds
def evaluate(
    path: str | os.PathLike[str] | bytes,
    data: Iterable[tuple[Any, Any]] | tuple[Any, Any],
    *,
    workers: int | None = None,
    reference: np.ndarray | None = None,
    differences: int = 8,
) -> Evaluation:
    """Run a `.tflite` file on labelled images, and compare it with its Keras model.

    Args:
        path: the file, or its content.
        data: batches of (images (n, height, width, 3) in [0, 255], integer labels (n,)), or one
            such pair of arrays. Must be finite.
        workers: number of threads, each with a copy of the model; None for one per processor. Does
            not change the result.
        reference: the Keras model's probabilities (images, classes) for the same images in order.
        differences: number of images with the largest differences to keep.

    Raises:
        ExportError: there are no images, labels do not match the images or the file's outputs, or
            an argument is out of range.

    Example:
        >>> import numpy as np
        >>> from keras import Input, Sequential, layers
        >>> from kpipe.lite import convert, evaluate
        >>> net = Sequential([Input((8, 8, 3)), layers.GlobalAveragePooling2D(), layers.Softmax()])
        >>> red, green = np.zeros((2, 1, 8, 8, 3))
        >>> red[..., 0], green[..., 1] = 255, 255
        >>> found = evaluate(convert(net), [(red, np.array([0])), (green, np.array([2]))])
        >>> found.accuracy, found.confusion.tolist()
        (0.5, [[1, 0, 0], [0, 0, 0], [0, 1, 0]])
    """
    for name, count, least in (("workers", workers, 1), ("differences", differences, 0)):
        if count is not None and count < least:
            raise ExportError(
                f"invalid number of {name}", expected=f"{least} or more", received=f"{name}={count}"
            )
    if reference is not None:
        try:
            reference = np.atleast_1d(np.asarray(reference, np.float32))
        except (TypeError, ValueError):  # anything but numbers, or rows of different lengths
            reference = np.empty(0, np.float32)
    with _parallel_predictor(path, workers or os.cpu_count() or 1) as (model, predict):
        labels, predictions = [], []
        largest = _LargestDifferences(reference, differences)
        for images, truth in _batches(data, model.name):
            predictions.append(predict(images))
            labels.append(truth)
            largest.update(images, truth, predictions[-1])
    truth = np.concatenate(labels) if labels else np.empty(0, np.int64)
    _check_labels(truth, model)
    probabilities = np.concatenate(predictions)
    confusion = np.zeros((model.classes, model.classes), np.int64)
    predicted = probabilities.argmax(axis=1)
    np.add.at(confusion, (truth, predicted), 1)
    counts = confusion.sum(axis=1)
    recalls = confusion.diagonal()[counts > 0] / counts[counts > 0]
    agreement, worst = _compare(probabilities, reference, model.name)
    return Evaluation(
        images=int(truth.size),
        accuracy=float(confusion.trace() / truth.size),
        balanced_accuracy=float(recalls.mean()),
        agreement=agreement,
        worst_difference=worst,
        confusion=confusion,
        probabilities=probabilities,
        correct=predicted == truth,
        differences=tuple(largest.found),
    )


@contextmanager
def _parallel_predictor(
    path: str | os.PathLike[str] | bytes, workers: int
) -> Iterator[tuple[LiteModel, Callable[[np.ndarray], np.ndarray]]]:
    """Yield a model, and a function that predicts a batch with several copies of it."""
    models = [LiteModel(path)]
    models += [LiteModel(models[0].content) for _ in range(workers - 1)]
    idle: SimpleQueue[LiteModel] = SimpleQueue()
    for model in models:
        idle.put(model)

    def predict_part(part: np.ndarray) -> np.ndarray:
        model = idle.get()
        try:
            return model.predict(part)
        finally:
            idle.put(model)

    with ThreadPoolExecutor(workers) as pool:

        def predict(images: np.ndarray) -> np.ndarray:
            parts = np.array_split(images, max(1, min(len(images), 4 * workers)))
            return np.concatenate(list(pool.map(predict_part, parts)))

        yield models[0], predict


class _LargestDifferences:
    """The images seen so far with the largest differences from the reference."""

    def __init__(self, reference: np.ndarray | None, count: int) -> None:
        self.reference, self.count = reference, count
        self.seen = 0
        self.found: list[ImageDifference] = []

    def update(self, images: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> None:
        expected = None if self.reference is None else self.reference[self.seen :][: len(images)]
        # `_compare` reports a reference of another shape at the end.
        if expected is not None and expected.shape == predictions.shape:
            distances = np.abs(predictions - expected).max(axis=1)
            for row in np.argsort(-distances, kind="stable")[: self.count]:
                self.found.append(
                    ImageDifference(
                        position=self.seen + int(row),
                        difference=float(distances[row]),
                        label=int(labels[row]),
                        answer=int(predictions[row].argmax()),
                        reference=int(expected[row].argmax()),
                        image=images[row].copy(),
                    )
                )
            self.found.sort(key=lambda one: -one.difference)
            del self.found[self.count :]
        self.seen += len(images)


def _batches(data: Any, name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the batches as arrays that fit each other."""
    is_batch = isinstance(data, tuple) and not any(isinstance(part, tuple) for part in data)
    for batch in [data] if is_batch else data:
        parts = batch if isinstance(batch, tuple | list) else [batch]
        try:
            images, labels = (np.asarray(part) for part in parts)
            are_arrays = images.ndim and labels.ndim and object not in (images.dtype, labels.dtype)
        except (TypeError, ValueError):  # not two parts, or lists whose items differ in shape
            are_arrays = False
        if not are_arrays:
            raise ExportError(
                f"{name} cannot be evaluated on this kind of batch",
                expected="images (n, height, width, 3) of one size, and integer labels (n,)",
                received=", ".join(type(part).__name__ for part in parts),
                fix="pass arrays; pass several batches as a list of such pairs, not as a tuple",
            )
        if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
            raise ExportError(
                f"labels do not fit their images in the data for {name}",
                expected=f"integers ({len(images)},)",
                received=f"{labels.dtype} {labels.shape}",
                fix="pass several batches as a list of pairs, not as a tuple",
            )
        yield images, labels


def _check_labels(labels: np.ndarray, model: LiteModel) -> None:
    if not labels.size:
        raise ExportError(f"no images to evaluate {model.name} on", expected="at least one batch")
    unknown = sorted({int(label) for label in labels if not 0 <= label < model.classes})
    if unknown:
        raise ExportError(
            f"labels that {model.name} has no output for: {', '.join(map(str, unknown))}",
            expected=f"0 to {model.classes - 1}",
        )


def _compare(
    probabilities: np.ndarray, reference: np.ndarray | None, name: str
) -> tuple[float | None, float | None]:
    """Return the agreement and the largest difference of probabilities."""
    if reference is None:
        return None, None
    if reference.shape != probabilities.shape:
        raise ExportError(
            f"the reference does not belong to the images that {name} was run on",
            expected=f"probabilities {probabilities.shape}",
            received=f"{reference.shape}",
        )
    same = probabilities.argmax(axis=1) == reference.argmax(axis=1)
    return float(same.mean()), float(np.abs(probabilities - reference).max())
