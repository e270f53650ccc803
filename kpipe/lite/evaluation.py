"""How right an exported file is, measured by running it.

confusion[i, j] = images of class i that the file calls j
accuracy = trace / sum        balanced accuracy = mean over classes of diagonal / row sum
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kpipe.errors import ExportError
from kpipe.lite.interpreter import LiteModel

__all__ = ["Evaluation", "evaluate"]


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
    """

    images: int
    accuracy: float
    balanced_accuracy: float
    agreement: float | None
    worst_difference: float | None
    confusion: np.ndarray
    probabilities: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the probabilities of single images."""
        return {
            "images": self.images,
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "agreement": self.agreement,
            "worst_difference": self.worst_difference,
            "confusion": self.confusion.tolist(),
        }


def evaluate(
    path: str | os.PathLike[str] | bytes,
    data: Iterable[tuple[Any, Any]] | tuple[np.ndarray, np.ndarray],
    *,
    threads: int = 1,
    reference: np.ndarray | None = None,
) -> Evaluation:
    """Run a `.tflite` file on labelled images and compare it with the Keras model it came from.

    Args:
        path: the file, or its content.
        data: batches of (images (n, height, width, 3) in [0, 255], integer labels (n,)), or one
            such pair of arrays. It must end.
        threads: processor threads that LiteRT may use.
        reference: the Keras model's probabilities (images, classes) of the same images in order.

    Raises:
        ExportError: no images, labels the file has no output for, or a reference of another shape.
    """
    model = LiteModel(path, threads)
    answers, truths = [], []
    for images, labels in _batches(data):
        images, labels = np.asarray(images), np.asarray(labels)
        if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
            raise ExportError(
                f"labels do not fit their images in the data for {model.name}",
                expected=f"integers ({len(images)},)",
                received=f"{labels.dtype} {labels.shape}",
            )
        answers.append(model.predict(images))
        truths.append(labels)
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
    )


def _batches(data: Any) -> Iterable[tuple[Any, Any]]:
    is_pair = isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], tuple)
    return [data] if is_pair else data


def _compared(
    probabilities: np.ndarray, reference: np.ndarray | None, name: str
) -> tuple[float | None, float | None]:
    if reference is None:
        return None, None
    reference = np.asarray(reference, np.float32)
    if reference.shape != probabilities.shape:
        raise ExportError(
            f"the reference is not about the images that {name} was run on",
            expected=f"probabilities {probabilities.shape}",
            received=f"{reference.shape}",
        )
    same = probabilities.argmax(axis=1) == reference.argmax(axis=1)
    return float(same.mean()), float(np.abs(probabilities - reference).max())
