"""The photos that an exported file is made and evaluated with, and its row of `metrics.json`."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kpipe.stages.photos.photo_dataset import PhotoDataset

if TYPE_CHECKING:
    import numpy as np

    from kpipe.lite import Evaluation

__all__ = ["BATCH", "calibration_photos", "labelled_batches", "measure"]

BATCH = 64


def calibration_photos(photos: PhotoDataset, count: int) -> Iterator[np.ndarray]:
    """Yield training photos, drawn evenly over the classes."""
    import numpy as np

    rows, labels = photos.manifest.rows("train"), photos.manifest.labels("train")
    generator = np.random.default_rng(photos.seed)
    shuffled = [generator.permutation(rows[labels == c]) for c in range(len(photos.classes))]
    # The first photo of every class, then the second of every class that has one, and so on.
    order = [photos_of[i] for i in range(len(rows)) for photos_of in shuffled if i < len(photos_of)]
    for row in order[:count]:
        yield photos.images[row]


def labelled_batches(photos: PhotoDataset, split: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield a split in the manifest's order."""
    rows, labels = photos.manifest.rows(split), photos.manifest.labels(split)
    for start in range(0, len(rows), BATCH):
        yield photos.images[rows[start : start + BATCH]], labels[start : start + BATCH]


def measure(
    path: Path, photos: PhotoDataset, reference: np.ndarray, evaluation: Evaluation
) -> dict[str, Any]:
    """Describe the evaluation of a file on the test split, against its Keras model; time it."""
    import numpy as np

    from kpipe.lite import benchmark
    from kpipe.paired_loss import PairedLoss

    by_keras = reference.argmax(axis=1) == photos.manifest.labels("test")
    loss = PairedLoss.between(by_keras, evaluation.correct)
    found, timed = evaluation.to_dict(), benchmark(path, threads=1).to_dict()
    rows, table = photos.manifest.rows("test"), photos.manifest.table
    for entry, difference in zip(found["differences"], evaluation.differences, strict=True):
        entry["path"] = str(table["path"].iloc[rows[entry.pop("position")]])
        entry["thumbnail"] = _thumbnail(difference.image)
    return {
        "file": path.name,
        "keras_accuracy": float(np.mean(by_keras)),
        "lost": loss.lost,
        "won": loss.won,
        **found,
        **timed,
    }


def _thumbnail(image: np.ndarray) -> str:
    """Return a small JPEG as a data URI."""
    from PIL import Image

    picture, file = Image.fromarray(image), BytesIO()
    picture.thumbnail((96, 96))
    picture.save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"
