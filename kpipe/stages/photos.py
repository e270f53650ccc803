"""What a training stage reads: the photos that the stages before it left, ready for `fit`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kpipe.core.stage import Context
from kpipe.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from kpipe.data import Augmenter, Manifest

__all__ = ["Photos"]


@dataclasses.dataclass(frozen=True)
class Photos:
    """What a training stage reads: photos in splits, how they are changed and weighted.

    Attributes:
        manifest: the photos, their labels and splits.
        images: uint8 (photos, size, size, 3), a row per row of the manifest, mapped from disk.
        seed: of the order, the augmentation and the initial weights.
        batch_size: photos in a step.
        augmenter: what changes the training photos; None leaves them.
        class_weight: class index -> factor in the loss; None counts all the same.
    """

    manifest: Manifest
    images: np.ndarray
    seed: int
    batch_size: int = 32
    augmenter: Augmenter | None = None
    class_weight: dict[int, float] | None = None

    @classmethod
    def read(cls, context: Context, batch_size: int = 32) -> Photos:
        """The photos that the stages before gave."""
        import numpy as np

        from kpipe.data import Augmenter, Manifest

        folder = context.newest("data")
        augmentation, balance = context.optional("augmentation"), context.optional("balance")
        augmenter = weights = None
        if augmentation:
            augmenter = Augmenter(**_read(augmentation / "augmentation.json"))
        if balance:
            weights = dict(enumerate(_read(balance / "balance.json")["class_weight"]))
        images = np.load(folder / "images.npy", mmap_mode="r")
        manifest = Manifest.load(folder)
        if len(images) != len(manifest.table):
            raise DataError(
                f"{folder} holds {len(images)} images for {len(manifest.table)} photos",
                fix="run again with --fresh",
            )
        return cls(manifest, images, context.seed, batch_size, augmenter, weights)

    def varied(self, seed: int, strength: float) -> Photos:
        """The same photos in another order, with other draws and a stronger or weaker change."""
        augmenter = self.augmenter.scaled(strength) if self.augmenter else None
        return dataclasses.replace(self, seed=seed, augmenter=augmenter)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names, in the order of the network's outputs."""
        return self.manifest.classes

    @property
    def image_size(self) -> int:
        """Pixels of a side."""
        return int(self.images.shape[1])

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        from kpipe.data import steps

        return steps(self.manifest, "train", self.batch_size)

    def training(self, first_epoch: int) -> tf.data.Dataset:
        """Endless batches from an epoch on."""
        from kpipe.data import Training, dataset

        return dataset(
            self.manifest,
            "train",
            images=self.images,
            batch_size=self.batch_size,
            training=Training(self.seed, self.augmenter, first_epoch),
        )

    def finite(self, split: str, batch_size: int | None = None) -> tf.data.Dataset:
        """A split once, in the manifest's order, unchanged."""
        from kpipe.data import dataset

        return dataset(
            self.manifest, split, images=self.images, batch_size=batch_size or self.batch_size
        )


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
