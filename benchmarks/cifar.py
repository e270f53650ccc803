"""A part of CIFAR-10 (Krizhevsky 2009) on which two cores can train in minutes.

The part: the first 1,000 photos of each class of train/, by name, every tenth of them for
validation, and all 10,000 of test/. Batches of 128, flips and shifts of 4 pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

EACH, BATCH = 1000, 128
Arrays = tuple[np.ndarray, np.ndarray]


def splits(folder: Path) -> dict[str, Arrays]:
    """Return the splits: train as uint8, validation as float32, test as uint8; labels int32."""
    photos, labels = load(folder / "train", EACH)
    held = np.arange(len(photos)) % 10 == 0
    return {
        "train": (photos[~held], labels[~held]),
        "validation": (photos[held].astype(np.float32), labels[held]),
        "test": load(folder / "test", None),
    }


def load(folder: Path, each: int | None) -> Arrays:
    """Load photos (n, 32, 32, 3) uint8 and labels (n,), the first `each` of every class or all."""
    photos, labels = [], []
    for label, kind in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        for path in sorted(kind.iterdir())[:each]:
            photos.append(np.asarray(Image.open(path).convert("RGB")))
            labels.append(label)
    return np.stack(photos), np.array(labels, np.int32)


def batches(photos: np.ndarray, labels: np.ndarray, seed: int) -> tf.data.Dataset:
    """Return endless batches; each photo is flipped and shifted by a separate draw."""
    padded = np.pad(photos, ((0, 0), (4, 4), (4, 4), (0, 0)))
    count = len(photos) // BATCH * BATCH

    def epochs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        random = np.random.default_rng(seed)
        while True:
            order = random.permutation(len(photos))[:count]
            tops, lefts = random.integers(0, 9, (2, count))
            rows = tops[:, None, None] + np.arange(32)[:, None]
            columns = lefts[:, None, None] + np.arange(32)
            flipped = random.random(count)[:, None, None] < 0.5
            columns = np.where(flipped, columns[..., ::-1], columns)
            shown = padded[order[:, None, None], rows, columns].astype(np.float32)
            for start in range(0, count, BATCH):
                part = slice(start, start + BATCH)
                yield shown[part], labels[order[part]]

    signature = (
        tf.TensorSpec((BATCH, 32, 32, 3), tf.float32),
        tf.TensorSpec((BATCH,), tf.int32),
    )
    return tf.data.Dataset.from_generator(epochs, output_signature=signature).prefetch(4)


class StepDecay(keras.callbacks.Callback):
    """Divide the learning rate of the current optimizer by ten at 60 % and 85 % of the epochs."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.at = (round(0.6 * epochs), round(0.85 * epochs))

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if epoch in self.at:
            optimizer = self.model.optimizer
            optimizer.learning_rate = float(optimizer.learning_rate.numpy()) / 10
