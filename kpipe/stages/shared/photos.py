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

    from kpipe.data import Augmenter, Manifest, Mixer, Sampling, TrainingOptions

__all__ = ["Photos"]


@dataclasses.dataclass(frozen=True)
class Photos:
    """What a training stage reads: photos in splits, how they are drawn, changed and weighted.

    Attributes:
        manifest: the photos, their labels and splits.
        images: uint8 (photos, size, size, 3), a row per row of the manifest, mapped from disk.
        seed: of the order, the augmentation and the initial weights.
        batch_size: photos in a step.
        augmenter: what changes the training photos; None leaves them.
        mixer: what mixes those of a batch, so that labels are shares of the classes; None does not.
        sampling: which photos an epoch shows; None shows each once.
        class_weight: class index -> factor in the loss; None counts all the same.
        shown_size: pixels of a side to which photos are made smaller; None leaves them.
        origin: the name of the result that holds them, which stands for its content.
        shared: a folder that all runs share; None where there is none.
    """

    manifest: Manifest
    images: np.ndarray
    seed: int
    batch_size: int = 32
    augmenter: Augmenter | None = None
    mixer: Mixer | None = None
    sampling: Sampling | None = None
    class_weight: dict[int, float] | None = None
    shown_size: int | None = None
    origin: str = ""
    shared: Path | None = None

    @classmethod
    def read(cls, context: Context, batch_size: int = 32) -> Photos:
        """The photos that the stages before gave."""
        import numpy as np

        from kpipe.data import Manifest

        folder = context.newest("data")
        images = np.load(folder / "images.npy", mmap_mode="r")
        manifest = Manifest.load(folder)
        if len(images) != len(manifest.table):
            raise DataError(
                f"{folder} holds {len(images)} images for {len(manifest.table)} photos",
                fix="run again with --fresh",
            )
        sampling, weights = _balance(context)
        augmenter, mixer = _augmentation(context, sampling)
        return cls(
            manifest,
            images,
            context.seed,
            batch_size,
            augmenter,
            mixer,
            sampling,
            weights,
            origin=folder.name,
            shared=context.shared,
        )

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
    def size(self) -> int:
        """Pixels of a side, as the network sees them."""
        return self.shown_size or self.image_size

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        from kpipe.data import steps

        return steps(self.manifest, "train", self.batch_size, self.sampling)

    @property
    def fit_weight(self) -> dict[int, float] | None:
        """`class_weight` of `fit`; None where each photo brings its own, as a mixed one does."""
        return self.class_weight if self.mixer is None else None

    @property
    def drawn_from(self) -> dict[str, Any]:
        """All that decides what `training` gives, in plain data."""
        fields = dataclasses.asdict(self._drawn(0))
        # Keys of canonical mappings are text.
        weights = sorted((fields.pop("class_weight") or {}).items())
        return {
            "origin": self.origin,
            "batch_size": self.batch_size,
            "shown_size": self.shown_size,
            "training": {**fields, "class_weight": weights},
        }

    def training(self, first_epoch: int) -> tf.data.Dataset:
        """Endless batches from an epoch on."""
        from kpipe.data import dataset

        batches = dataset(
            self.manifest,
            "train",
            images=self.images,
            batch_size=self.batch_size,
            training=self._drawn(first_epoch),
        )
        return self._shown(batches)

    def names(self, epoch: int, batch: int) -> list[str]:
        """The paths of the photos of one training batch."""
        from kpipe.data.loading.epochs import photos_of_batch

        drawn = photos_of_batch(self.manifest, "train", self._drawn(epoch), self.batch_size, batch)
        rows = self.manifest.rows("train")[drawn]
        return [str(path) for path in self.manifest.table["path"].to_numpy()[rows]]

    def evaluation_dataset(self, split: str, batch_size: int | None = None) -> tf.data.Dataset:
        """A split once, in the manifest's order, unchanged; labels of the kind of training's."""
        from kpipe.data import dataset

        batches = dataset(
            self.manifest,
            split,
            images=self.images,
            batch_size=batch_size or self.batch_size,
            one_hot=self.mixer is not None,
        )
        return self._shown(batches)

    def _drawn(self, first_epoch: int) -> TrainingOptions:
        from kpipe.data import TrainingOptions

        return TrainingOptions(
            seed=self.seed,
            augmenter=self.augmenter,
            first_epoch=first_epoch,
            sampling=self.sampling,
            mixer=self.mixer,
            class_weight=self.class_weight if self.mixer is not None else None,
        )

    def _shown(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        import tensorflow as tf

        if self.shown_size is None:
            return batches
        size = (self.shown_size, self.shown_size)

        def shrink(images: tf.Tensor, *rest: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return (tf.image.resize(images, size, antialias=True), *rest)

        return batches.map(shrink, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _balance(context: Context) -> tuple[Sampling | None, dict[int, float] | None]:
    """What Balance declared: which photos an epoch shows, and what their classes weigh."""
    from kpipe.data import Sampling

    folder = context.optional("balance")
    if folder is None:
        return None, None
    about = _read(folder / "balance.json")
    sampling = Sampling(**about["sampling"]) if about["sampling"] else None
    return sampling, dict(enumerate(about["class_weight"])) if about["class_weight"] else None


def _augmentation(
    context: Context, sampling: Sampling | None
) -> tuple[Augmenter | None, Mixer | None]:
    """What Augment declared; its defaults where the repeats of rare photos need some change."""
    from kpipe.data import Augmenter, Mixer

    folder = context.optional("augmentation")
    if folder is not None:
        about = _read(folder / "augmentation.json")
        mixer = Mixer(**about["mixer"])
        return Augmenter(**about["augmenter"]), None if mixer == Mixer() else mixer
    if sampling is None or sampling.method != "augment_minority":
        return None, None
    from kpipe.stages.augment import Augment

    known = {field.name for field in dataclasses.fields(Augmenter)}
    usual = {name: value for name, value in Augment().configuration().items() if name in known}
    context.journal.record(
        "note", text="no Augment is declared: augment_minority changes the repeats by its defaults"
    )
    return Augmenter(**usual), None


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
