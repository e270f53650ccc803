"""Photos in, labels out: a `.tflite` file with the `labels.txt` beside it.

photo -> EXIF-upright -> RGB -> shorter side fits, center crop -> raw pixels -> the file
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from kpipe.errors import DataError, ExportError
from kpipe.lite.interpreter import LiteModel

__all__ = ["Classifier", "Prediction"]

# A closed list: Pillow also knows formats that start other programs.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")

_UNREADABLE = (
    *(OSError, SyntaxError, TypeError, ValueError, EOFError, struct.error, zlib.error),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)


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
            name a line.
        threads: processor threads that LiteRT may use.

    Raises:
        ExportError: a file that is not right, or labels that do not match its outputs.

    >>> Classifier("model.tflite").predict(["cat.jpg"])[0].label  # doctest: +SKIP
    'cat'
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        labels: Sequence[str] | None = None,
        threads: int = 1,
    ) -> None:
        self.model = LiteModel(path, threads)
        self.labels = _read_labels(Path(path)) if labels is None else list(labels)
        _check_labels(self.labels, self.model)

    def predict(self, images: Any) -> list[Prediction]:
        """One prediction for each image, in order.

        Args:
            images: a path, a PIL image, a uint8 RGB array (height, width, 3) of any size, or an
                iterable of these, such as an array (n, height, width, 3).

        Raises:
            DataError: images that cannot be read, every one of them named.
        """
        items = [images] if _is_one(images) else list(images)
        pixels, refused = [], []
        for position, item in enumerate(items):
            try:
                pixels.append(self._pixels(item))
            except _UNREADABLE as error:
                name = os.fspath(item) if isinstance(item, (str, os.PathLike)) else f"#{position}"
                reason = "not an image" if isinstance(error, UnidentifiedImageError) else error
                refused.append(f"{name} ({reason})")
        if refused:
            raise DataError(
                "images that cannot be read: " + ", ".join(refused),
                expected="paths of image files, PIL images, or uint8 arrays (height, width, 3)",
            )
        return [self._named(row) for image in pixels for row in self.model.predict(image[None])]

    def _pixels(self, item: Any) -> np.ndarray:
        """Uint8 (height, width, 3) as the model was trained to see it."""
        if isinstance(item, (str, os.PathLike)):
            with Image.open(item, formats=_FORMATS) as photo:
                return self._fitted(photo)
        if isinstance(item, Image.Image):
            return self._fitted(item)
        array = np.asarray(item)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3:
            raise TypeError(f"{array.dtype} array of shape {array.shape}")
        return self._fitted(Image.fromarray(array))

    def _fitted(self, photo: Image.Image) -> np.ndarray:
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and photo.width * photo.height > limit:
            raise ValueError(f"{photo.width} x {photo.height} pixels are more than {limit}")
        height, width = self.model.image_size
        upright = _rgb(ImageOps.exif_transpose(photo))
        return np.asarray(ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR))

    def _named(self, row: np.ndarray) -> Prediction:
        best = int(row.argmax())
        return Prediction(
            self.labels[best],
            float(row[best]),
            dict(zip(self.labels, row.tolist(), strict=True)),
        )


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("32-bit values, of which the range is not known")
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point values, of which the range is not known")
    if image.has_transparency_data:
        color = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", color.size, "white"), color).convert("RGB")
    return image.convert("RGB")


def _is_one(images: Any) -> bool:
    if isinstance(images, np.ndarray):
        return images.ndim <= 3
    return isinstance(images, (str, os.PathLike, Image.Image)) or not isinstance(images, Iterable)


def _read_labels(path: Path) -> list[str]:
    beside = path.with_name("labels.txt")
    try:
        return beside.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(
            f"cannot read the labels of {path}: {error}",
            expected=f"{beside}, one name a line",
            fix="write that file, or pass labels=[...]",
        ) from error


def _check_labels(labels: Sequence[str], model: LiteModel) -> None:
    empty = [str(position) for position, label in enumerate(labels) if not label.strip()]
    repeated = sorted({label for label in labels if labels.count(label) > 1 and label.strip()})
    problems = [
        *([f"lines {', '.join(empty)} (from 0) are empty"] if empty else []),
        *([f"{', '.join(map(repr, repeated))} more than once"] if repeated else []),
    ]
    if problems or len(labels) != model.classes:
        raise ExportError(
            f"the labels do not match {model.name}",
            expected=f"{model.classes} different names, one for each output",
            received="; ".join([f"{len(labels)} labels", *problems]),
            fix="use the labels.txt that was written with the file",
        )
