"""How right an exported file is, measured by running it.

confusion[i, j] = images of class i that the file calls j
accuracy = trace / sum        balanced accuracy = mean over classes of diagonal / row sum
"""

from __future__ import annotations

import numbers
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

__all__ = ["Difference", "Evaluation", "evaluate"]


@dataclass(frozen=True, eq=False)
class Difference:
    """An image on which a file is far from the Keras model that it was made from.

    Attributes:
        position: of the image in the data.
        difference: largest absolute difference of a probability.
        label: its class.
        answer: the class that the file gives.
        reference: the class that the Keras model gives.
        image: (height, width, 3), as it was given.
    """

    position: int
    difference: float
    label: int
    answer: int
    reference: int
    image: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the image."""
        names = ("position", "difference", "label", "answer", "reference")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a file answered on labelled images.

    Attributes:
        images: how many there were.
        accuracy: share of right answers.
        balanced_accuracy: mean of the classes' recalls, over the classes that occur.
        agreement: share of images with the reference's answer; None without a reference.
        worst_difference: largest absolute difference from the reference's probabilities.
        confusion: int64 (classes, classes), true class by answer.
        probabilities: float32 (images, classes), in the order of the data.
        differences: the images farthest from the reference, the farthest first; none without one.
    """

    images: int
    accuracy: float
    balanced_accuracy: float
    agreement: float | None
    worst_difference: float | None
    confusion: np.ndarray
    probabilities: np.ndarray
    differences: tuple[Difference, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the probabilities of single images."""
        return {
            "images": self.images,
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "agreement": self.agreement,
            "worst_difference": self.worst_difference,
            "confusion": self.confusion.tolist(),
            "differences": [difference.to_dict() for difference in self.differences],
        }


def evaluate(
    path: str | os.PathLike[str] | bytes,
    data: Iterable[tuple[Any, Any]] | tuple[np.ndarray, np.ndarray],
    *,
    workers: int | None = None,
    reference: np.ndarray | None = None,
    differences: int = 8,
) -> Evaluation:
    """Run a `.tflite` file on labelled images and compare it with the Keras model it came from.

    Args:
        path: the file, or its content.
        data: batches of (images (n, height, width, 3) in [0, 255], integer labels (n,)), or one
            such pair of arrays. It must end.
        workers: how many copies of the model answer at once, a thread each; None for one for each
            processor. The answers are the same.
        reference: the Keras model's probabilities (images, classes) of the same images in order.
        differences: how many of the images farthest from it to keep.

    Raises:
        ExportError: numbers out of range, no images, labels the file has no output for, or a
            reference of another shape.
    """
    _check_counts(workers, differences)
    workers = workers or os.cpu_count() or 1
    reference = None if reference is None else np.asarray(reference, np.float32)
    with _answering(path, workers) as (model, answer):
        answers, truths, farthest = [], [], _Farthest(reference, differences)
        for batch in _batches(data):
            images, labels = _pair(batch, model.name)
            if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
                raise ExportError(
                    f"labels do not fit their images in the data for {model.name}",
                    expected=f"integers ({len(images)},)",
                    received=f"{labels.dtype} {labels.shape}",
                    fix="give several batches as a list of pairs, not as a tuple",
                )
            answers.append(answer(images))
            truths.append(labels)
            farthest.look(images, labels, answers[-1])
    truth = np.concatenate(truths) if truths else np.empty(0, np.int64)
    if not truth.size:
        raise ExportError(f"no images to evaluate {model.name} on", expected="at least one batch")
    unknown = sorted({int(label) for label in truth if not 0 <= label < model.classes})
    if unknown:
        raise ExportError(
            f"labels that {model.name} has no output for: {', '.join(map(str, unknown))}",
            expected=f"0 to {model.classes - 1}",
        )
    probabilities = np.concatenate(answers)
    confusion = np.zeros((model.classes, model.classes), np.int64)
    np.add.at(confusion, (truth, probabilities.argmax(axis=1)), 1)
    counts = confusion.sum(axis=1)
    recalls = confusion.diagonal()[counts > 0] / counts[counts > 0]
    agreement, worst = _compared(probabilities, reference, model.name)
    return Evaluation(
        images=int(truth.size),
        accuracy=float(confusion.trace() / truth.size),
        balanced_accuracy=float(recalls.mean()),
        agreement=agreement,
        worst_difference=worst,
        confusion=confusion,
        probabilities=probabilities,
        differences=tuple(farthest.found),
    )


def _check_counts(workers: int | None, differences: int) -> None:
    counts = {"workers": (1 if workers is None else workers, 1), "differences": (differences, 0)}
    for name, (count, least) in counts.items():
        if not isinstance(count, numbers.Integral) or count < least:
            raise ExportError(
                f"nothing can be evaluated with {name}={count!r}",
                expected=f"a whole number of {least} or more",
            )


@contextmanager
def _answering(
    path: str | os.PathLike[str] | bytes, workers: int
) -> Iterator[tuple[LiteModel, Callable[[np.ndarray], np.ndarray]]]:
    """A model, and what answers a batch by several copies of it."""
    models = [LiteModel(path)]
    models += [LiteModel(models[0].content) for _ in range(workers - 1)]
    free: SimpleQueue[LiteModel] = SimpleQueue()
    for model in models:
        free.put(model)

    def one(part: np.ndarray) -> np.ndarray:
        model = free.get()
        try:
            return model.predict(part)
        finally:
            free.put(model)

    with ThreadPoolExecutor(workers) as pool:

        def answer(images: np.ndarray) -> np.ndarray:
            parts = np.array_split(images, max(1, min(len(images), 4 * workers)))
            return np.concatenate(list(pool.map(one, parts)))

        yield models[0], answer


class _Farthest:
    """The images on which the answers were farthest from the reference, so far."""

    def __init__(self, reference: np.ndarray | None, count: int) -> None:
        self.reference, self.count = reference, count
        self.seen = 0
        self.found: list[Difference] = []

    def look(self, images: np.ndarray, labels: np.ndarray, answers: np.ndarray) -> None:
        expected = None if self.reference is None else self.reference[self.seen :][: len(images)]
        if expected is not None and expected.shape == answers.shape:  # refused later otherwise
            distances = np.abs(answers - expected).max(axis=1)
            for row in np.argsort(-distances, kind="stable")[: self.count]:
                self.found.append(
                    Difference(
                        position=self.seen + int(row),
                        difference=float(distances[row]),
                        label=int(labels[row]),
                        answer=int(answers[row].argmax()),
                        reference=int(expected[row].argmax()),
                        image=images[row].copy(),
                    )
                )
            self.found.sort(key=lambda one: -one.difference)
            del self.found[self.count :]
        self.seen += len(images)


def _batches(data: Any) -> Iterable[tuple[Any, Any]]:
    is_batch = isinstance(data, tuple) and not any(isinstance(part, tuple) for part in data)
    return [data] if is_batch else data


def _pair(batch: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        count = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
        raise ExportError(
            f"{name} is evaluated on batches of another kind",
            expected="(images (n, height, width, 3), integer labels (n,))",
            received=f"{type(batch).__name__}{count}",
        )
    try:
        images, labels = (np.asarray(part) for part in batch)
    except (TypeError, ValueError):  # what a part holds has no shape in common
        images = labels = np.asarray(None)
    if any(array.ndim == 0 or array.dtype == object for array in (images, labels)):
        raise ExportError(
            f"images or labels for {name} are no array",
            expected="images (n, height, width, 3) of one size, integer labels (n,)",
            received=f"({', '.join(type(part).__name__ for part in batch)})",
            fix="give arrays; several batches as a list of such pairs, not as a tuple",
        )
    return images, labels


def _compared(
    probabilities: np.ndarray, reference: np.ndarray | None, name: str
) -> tuple[float | None, float | None]:
    if reference is None:
        return None, None
    if reference.shape != probabilities.shape:
        raise ExportError(
            f"the reference is not about the images that {name} was run on",
            expected=f"probabilities {probabilities.shape}",
            received=f"{reference.shape}",
        )
    same = probabilities.argmax(axis=1) == reference.argmax(axis=1)
    return float(same.mean()), float(np.abs(probabilities - reference).max())
