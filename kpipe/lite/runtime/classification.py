"""Photos in, labels out: a `.tflite` file with the `labels.txt` beside it or inside.

photo -> `kpipe.pixels.fit_photo`, as for training -> raw pixels in [0, 255] -> the file
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kpipe.errors import DataError
from kpipe.lite.labels_file import check_labels, read_labels
from kpipe.lite.runtime.interpreter import LiteModel
from kpipe.pixels import background_color, fit_image, fit_photo

__all__ = ["Classifier", "Prediction"]


@dataclass(frozen=True)
class Prediction:
    """The most probable label of one photo, and every label's probability."""

    label: str
    probability: float
    probabilities: dict[str, float]


class Classifier:
    """A `.tflite` image classifier that takes photos as they come.

    Args:
        path: the `.tflite` file.
        labels: one name for each output, in order; None reads `labels.txt` beside the file, one
            name a line, or where there is none, inside it.
        threads: processor threads that LiteRT may use.
        background: a CSS color, under transparent pixels; the one of the training.

    Raises:
        ExportError: a file that is not right, or labels that do not match its outputs.
        DataError: no such color.

    >>> Classifier("model.tflite").predict(["cat.jpg"])[0].label  # doctest: +SKIP
    'cat'
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        labels: Sequence[str] | None = None,
        threads: int = 1,
        background: str = "white",
    ) -> None:
        background_color(background)
        self.background = background
        self.model = LiteModel(path, threads)
        self.labels = read_labels(Path(path)) if labels is None else list(labels)
        check_labels(self.labels, self.model.classes, self.model.name)

    def predict(self, images: Any) -> list[Prediction]:
        """One prediction for each image, in order.

        Args:
            images: a path, a PIL image, a uint8 RGB array (height, width, 3) of any size, or an
                iterable of these, such as an array (n, height, width, 3).

        Raises:
            DataError: images that cannot be read, every one of them named.
        """
        if hasattr(images, "__array__"):  # a tensor of some library, too
            array = np.asarray(images)
            images = images if array.dtype == object else array
        items = [images] if _is_one(images) else list(images)
        pixels, refused = [], []
        for position, item in enumerate(items):
            try:
                pixels.append(self._pixels(item))
            except (OSError, TypeError, ValueError) as error:
                name = os.fspath(item) if isinstance(item, (str, os.PathLike)) else f"#{position}"
                refused.append(f"{name} ({error})")
        if refused:
            raise DataError(
                "images that cannot be read: " + ", ".join(refused),
                expected="paths of image files, PIL images, or uint8 arrays (height, width, 3)",
            )
        return [self._named(row) for image in pixels for row in self.model.predict(image[None])]

    def _pixels(self, item: Any) -> np.ndarray:
        """Uint8 (height, width, 3) as the model was trained to see it."""
        height, width = self.model.image_size
        size = height, width
        if isinstance(item, (str, os.PathLike)):
            path = Path(item)
            with path.open("rb") as file:
                return fit_photo(file, path.suffix, size, background=self.background)
        if isinstance(item, Image.Image):
            return fit_image(item, size, background=self.background)
        if isinstance(item, (bytes, bytearray, io.IOBase)):
            raise TypeError(f"a {type(item).__name__}; PIL.Image.open reads an open file")
        array = np.asarray(item)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3 or not array.size:
            raise TypeError(f"{array.dtype} array of shape {array.shape}")
        return fit_image(Image.fromarray(array), size)

    def _named(self, row: np.ndarray) -> Prediction:
        best = int(row.argmax())
        return Prediction(
            self.labels[best],
            float(row[best]),
            dict(zip(self.labels, row.tolist(), strict=True)),
        )


def _is_one(images: Any) -> bool:
    if isinstance(images, np.ndarray):
        return images.ndim <= 3
    one = (str, os.PathLike, Image.Image, bytes, bytearray, io.IOBase)
    return isinstance(images, one) or not isinstance(images, Iterable)
