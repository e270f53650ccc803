"""The data of a training run: batches by epoch, validation batches, and the photos' names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import tensorflow as tf

from kpipe.train.argument_checks import refuse_out_of_range
from kpipe.wrong_kinds import names_wrong_kinds_of_fields

__all__ = ["BatchNames", "TrainingData"]

BatchNames: TypeAlias = Callable[[int, int], Sequence[str]]


@names_wrong_kinds_of_fields
@dataclass(frozen=True)
class TrainingData:
    """What a model trains and validates on.

    `batches` is a function of the first epoch, so that a resumed training run sees the same batches
    as one that was never interrupted.

    Args:
        batches: first epoch -> an endless dataset from that epoch on, of images
            `(batch, height, width, 3)` float32 in [0, 255] and labels: integers `(batch,)`, or soft
            labels float32 `(batch, classes)`. A third item weighs each example, float32 `(batch,)`.
        steps_per_epoch: batches in an epoch, at least 1.
        validation: a finite dataset with labels of the same kind, or None.
        batch_names: (epoch, batch) -> the names of its photos, for errors about that batch.

    Raises:
        TrainingError: `steps_per_epoch` is out of range.

    Example:
        >>> from kpipe.data import dataset, from_folder, split, steps
        >>> from kpipe.train import TrainingData
        >>> photos = split(from_folder("photos"))
        >>> batches = dataset(photos, "train", image_size=32, batch_size=8)
        >>> data = TrainingData(lambda epoch: batches.repeat(), steps(photos, "train", 8))
    """

    batches: Callable[[int], tf.data.Dataset]
    steps_per_epoch: int
    validation: tf.data.Dataset | None = None
    batch_names: BatchNames | None = None

    def __post_init__(self) -> None:
        refuse_out_of_range("steps_per_epoch", self.steps_per_epoch, 1)

    def after(self, epochs: int) -> TrainingData:
        """Return the same data, starting after a number of epochs."""
        names = self.batch_names
        return dataclasses.replace(
            self,
            batches=lambda epoch: self.batches(epochs + epoch),
            batch_names=names and (lambda epoch, batch: names(epochs + epoch, batch)),
        )
