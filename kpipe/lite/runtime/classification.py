"""Classification of photos by a `.tflite` file, with the `labels.txt` beside it or inside.

photo -> `kpipe.pixels.fit_photo`, as in training -> raw pixels in [0, 255] -> file -> labels
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

from kpipe.errors import DataError, ExportError
from kpipe.lite.labels_txt import check_labels, read_labels
from kpipe.lite.runtime.interpreter import LiteModel
from kpipe.lite.runtime.member_outputs import MemberOutputs
from kpipe.lite.runtime.score_threshold import read_score_threshold
from kpipe.pixels import background_color, fit_image, fit_photo
from kpipe.wrong_kinds import names_wrong_kinds_of_fields

__all__ = ["Classifier", "Prediction"]


@dataclass(frozen=True)
class Prediction:
    """The prediction for one photo.

    Attributes:
        label: the most probable label.
        probability: its probability, in [0, 1].
        probabilities: label -> probability, in output order.
        sure: whether the probability reaches the file's threshold; true if the file has none.
        members: label -> probability for each member of an ensemble; empty unless asked for.

    Example:
        >>> from kpipe.lite import Prediction
        >>> Prediction("cat", 0.9, {"cat": 0.9, "dog": 0.1}).label
        'cat'
    """

    label: str
    probability: float
    probabilities: dict[str, float]
    sure: bool = True
    members: tuple[dict[str, float], ...] = ()


@names_wrong_kinds_of_fields
class Classifier:
    """A `.tflite` image classifier for photos of any size and format.

    Args:
        path: path of the `.tflite` file.
        labels: a name for each output, in order. None reads `labels.txt` beside the file, one name
            a line, or if there is none, inside it.
        threads: number of processor threads that LiteRT may use.
        background: CSS color under transparent pixels; use the one of training.
        threshold: probability in [0, 1] below which a prediction is not sure. None reads it from
            the file's metadata, which state one if `Export(coverage=)` or `add_metadata` wrote it.
        members: whether to return what each member of an ensemble predicts, too, at the ensemble's
            temperature. It takes a second, slower prediction. Float32 files of `kpipe.ensemble`
            models contain their members; for any other file, nothing changes.

    Attributes:
        threshold: the same; None if the file states none.

    Raises:
        ExportError: the file is not an image classifier, its metadata are damaged, the labels do
            not match its outputs, or the threshold is out of range.
        DataError: unknown color.

    Example:
        >>> from pathlib import Path
        >>> from keras import Input, Sequential, layers
        >>> from kpipe.lite import Classifier, convert
        >>> net = Sequential([Input((8, 8, 3)), layers.GlobalAveragePooling2D(), layers.Softmax()])
        >>> _ = Path("model.tflite").write_bytes(convert(net))
        >>> classifier = Classifier("model.tflite", labels=["red", "green", "blue"])
        >>> [found.label for found in classifier.predict(sorted(Path("photos/red").iterdir())[:2])]
        ['red', 'red']
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        labels: Sequence[str] | None = None,
        threads: int = 1,
        background: str = "white",
        threshold: float | None = None,
        members: bool = False,
    ) -> None:
        background_color(background)
        self.background = background
        self.model = LiteModel(path, threads)
        self.labels = read_labels(Path(path)) if labels is None else list(labels)
        check_labels(self.labels, self.model.classes, self.model.name)
        if threshold is None:
            threshold = read_score_threshold(self.model.content, self.model.name)
        elif not 0 <= threshold <= 1:
            raise ExportError(
                "invalid threshold",
                expected="a probability from 0 to 1, or None for that of the file",
                received=f"threshold={threshold!r}",
            )
        self.threshold = threshold
        found = MemberOutputs(self.model) if members else None
        self._members = found if found is not None and found.count else None

    def predict(self, images: Any) -> list[Prediction]:
        """Return one prediction for each image, in order.

        Args:
            images: a path, a PIL image, a uint8 RGB array (height, width, 3) of any size, or an
                iterable of these, such as an array (n, height, width, 3).

        Raises:
            DataError: some images cannot be read; the message lists all of them.
        """
        if hasattr(images, "__array__"):  # includes tensors of any library
            array = np.asarray(images)
            images = images if array.dtype == object else array
        items = [images] if _is_single(images) else list(images)
        pixels, unreadable = [], []
        for position, item in enumerate(items):
            try:
                pixels.append(self._pixels(item))
            except (OSError, TypeError, ValueError) as error:
                name = os.fspath(item) if isinstance(item, (str, os.PathLike)) else f"#{position}"
                unreadable.append(f"{name} ({error})")
        if unreadable:
            raise DataError(
                "images that cannot be read: " + ", ".join(unreadable),
                expected="paths of image files, PIL images, or uint8 arrays (height, width, 3)",
            )
        return [self._predict_one(image) for image in pixels]

    def _pixels(self, item: Any) -> np.ndarray:
        """Return uint8 (height, width, 3), cropped and resized as in training."""
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

    def _predict_one(self, image: np.ndarray) -> Prediction:
        (row,) = self.model.predict(image[None])
        best = int(row.argmax())
        members = () if self._members is None else self._members.predict(image)
        return Prediction(
            self.labels[best],
            float(row[best]),
            self._by_label(row),
            sure=self.threshold is None or float(row[best]) >= self.threshold,
            members=tuple(map(self._by_label, members)),
        )

    def _by_label(self, row: np.ndarray) -> dict[str, float]:
        return dict(zip(self.labels, row.tolist(), strict=True))


def _is_single(images: Any) -> bool:
    if isinstance(images, np.ndarray):
        return images.ndim <= 3
    single = (str, os.PathLike, Image.Image, bytes, bytearray, io.IOBase)
    return isinstance(images, single) or not isinstance(images, Iterable)
