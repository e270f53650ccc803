"""The photos that earlier stages prepared, as datasets for training and evaluation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kpipe.core.stage import Context
from kpipe.errors import DataError
from kpipe.stages.photos.declared_changes import read_augmentation, read_balance

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from kpipe.data import Augmenter, Manifest, Mixer, Sampling, TrainingOptions
    from kpipe.stages.compression.soft_targets import SoftTargets
    from kpipe.train import TrainingData

__all__ = ["PhotoDataset", "spread"]

_SAMPLE_STEPS = 20


@dataclasses.dataclass(frozen=True)
class PhotoDataset:
    """Photos in splits, and how training samples, augments and weights them.

    Attributes:
        manifest: the photos with their labels and splits.
        images: uint8 (photos, size, size, 3) in [0, 255], memory-mapped, in the manifest's order.
        seed: of the order of photos, the augmentation and the initial weights.
        batch_size: photos in a training step.
        augmenter: changes the training photos; None for no augmentation.
        mixer: mixes the photos and labels of a batch; None for no mixing.
        sampling: which photos an epoch shows; None shows each photo once.
        class_weight: class index -> factor in the loss; None weighs all classes equally.
        resized_to: pixels of a side that the network sees; None for the size of `images`.
        origin: the name of the result that holds the photos, which identifies its content.
        shared_folder: a folder that all runs share, or None.
        soft_targets: the teacher whose predictions are part of the labels, or None.
        bootstrap: seed of a bootstrap sample of the training photos; None for all of them.
        feature_source: the photos whose views features of a frozen backbone are computed from, if
            several training runs share them; None for these photos.
    """

    manifest: Manifest
    images: np.ndarray
    seed: int
    batch_size: int = 32
    augmenter: Augmenter | None = None
    mixer: Mixer | None = None
    sampling: Sampling | None = None
    class_weight: dict[int, float] | None = None
    resized_to: int | None = None
    origin: str = ""
    shared_folder: Path | None = None
    soft_targets: SoftTargets | None = None
    bootstrap: int | None = None
    feature_source: PhotoDataset | None = None

    @classmethod
    def read(cls, context: Context, batch_size: int = 32) -> PhotoDataset:
        """Read the results of Data, Balance and Augment."""
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
        sampling, class_weight = read_balance(context)
        augmenter, mixer = read_augmentation(context, sampling)
        return cls(
            manifest,
            images,
            context.seed,
            batch_size,
            augmenter,
            mixer,
            sampling,
            class_weight,
            origin=folder.name,
            shared_folder=context.shared,
        )

    def reseeded(self, seed: int, strength: float = 1.0) -> PhotoDataset:
        """Return the same photos with another seed; `strength` scales the augmentation."""
        augmenter = self.augmenter.scaled(strength) if self.augmenter else None
        return dataclasses.replace(self, seed=seed, augmenter=augmenter)

    def resized(self, size: int) -> PhotoDataset:
        """Return the same photos, resized to `size` x `size` pixels after the augmentation."""
        source = self.feature_source and self.feature_source.resized(size)
        return dataclasses.replace(self, resized_to=size, feature_source=source)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the network's outputs."""
        return self.manifest.classes

    @property
    def image_size(self) -> int:
        """Pixels of a side of `images`."""
        return int(self.images.shape[1])

    @property
    def input_size(self) -> int:
        """Pixels of a side that the network sees."""
        return self.resized_to or self.image_size

    @property
    def steps_per_epoch(self) -> int:
        """Training batches in an epoch."""
        return len(self._turns)

    @property
    def fit_class_weight(self) -> dict[int, float] | None:
        """`class_weight` for `fit`; None where batches bring their own weights."""
        return None if self._one_hot else self.class_weight

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that `training_dataset` depends on, as plain data for a cache key."""
        fields = dataclasses.asdict(self._training_options(0))
        # Keys of canonical mappings are text.
        weights = sorted((fields.pop("class_weight") or {}).items())
        soft_targets = {"soft_targets": self.soft_targets.identity} if self.soft_targets else {}
        return {
            "origin": self.origin,
            "batch_size": self.batch_size,
            "shown_size": self.resized_to,
            "training": {**fields, "class_weight": weights},
            **soft_targets,
        }

    def training_dataset(self, first_epoch: int) -> tf.data.Dataset:
        """Return endless training batches, from an epoch on."""
        from kpipe.data import dataset

        batches = dataset(
            self.manifest,
            "train",
            images=self.images,
            batch_size=self.batch_size,
            training=self._training_options(first_epoch),
        )
        if self.soft_targets is not None:
            further = self._unlabelled
            unlabelled = further.training_dataset(first_epoch) if further else None
            # Before the photos shrink: a teacher sees them at full size.
            batches = self.soft_targets.taught(batches, unlabelled, self._turns)
        return self._resize(batches)

    def training_data(self) -> TrainingData:
        """Return the training batches and the validation split for `fit`."""
        from kpipe.train import TrainingData

        validation = self.evaluation_dataset("validation")
        return TrainingData(
            self.training_dataset, self.steps_per_epoch, validation, self.batch_names
        )

    def sample(self) -> tf.data.Dataset:
        """Return the first training batches, up to 20, and no more than `Distiller` takes."""
        from kpipe.train.distillation.compared_features import MOST_PHOTOS

        steps = min(self.steps_per_epoch, _SAMPLE_STEPS, max(1, MOST_PHOTOS // self.batch_size))
        return self.training_dataset(0).take(steps)

    def calibration(self) -> tf.data.Dataset:
        """Return the training batches of the first epoch, up to 1,024 photos."""
        return self.training_dataset(0).take(
            min(self.steps_per_epoch, max(1, 1024 // self.batch_size))
        )

    def batch_names(self, epoch: int, batch: int) -> list[str]:
        """Return the paths of the photos in one training batch."""
        from kpipe.data.loading.epochs import photos_of_batch

        turns, further = self._turns, self._unlabelled
        if further is not None:
            place = int((turns[:batch] == turns[batch]).sum())
            if turns[batch]:
                return further.batch_names(epoch, place)
            batch = place
        options = self._training_options(epoch)
        drawn = photos_of_batch(self.manifest, "train", options, self.batch_size, batch)
        rows = self.manifest.rows("train")[drawn]
        return [str(path) for path in self.manifest.table["path"].to_numpy()[rows]]

    def feature_rows(self, views: int) -> np.ndarray | None:
        """Return the rows of each view of `feature_source` that the bootstrap sample holds.

        Returns:
            int64 (views, photos of an epoch); None without a bootstrap sample.
        """
        import numpy as np

        from kpipe.data.loading.epochs import bootstrap_counts, draw_photos, photos_per_epoch

        if self.bootstrap is None or self.feature_source is None:
            return None
        counts = bootstrap_counts(self.manifest, "train", self.bootstrap)
        options = self.feature_source._training_options(0)
        length = photos_per_epoch(self.manifest.labels("train"), self.sampling)
        drawn = draw_photos(self.manifest, "train", options).take(views * length)
        places = np.array([photo["place"] for photo in drawn.as_numpy_iterator()])
        rows = [np.repeat(np.arange(length), counts[view]) for view in places.reshape(views, -1)]
        # As many as an epoch has: a sampling repeats some photos and leaves out others.
        return np.stack([np.resize(of_view, length) for of_view in rows])

    def evaluation_dataset(self, split: str, batch_size: int | None = None) -> tf.data.Dataset:
        """Return a split once, in the manifest's order, without augmentation.

        Labels are one-hot if those of training are.
        """
        from kpipe.data import dataset

        batches = dataset(
            self.manifest,
            split,
            images=self.images,
            batch_size=batch_size or self.batch_size,
            one_hot=self._one_hot,
        )
        return self._resize(batches)

    def _training_options(self, first_epoch: int) -> TrainingOptions:
        from kpipe.data import TrainingOptions

        return TrainingOptions(
            seed=self.seed,
            augmenter=self.augmenter,
            first_epoch=first_epoch,
            sampling=self.sampling,
            mixer=self.mixer,
            class_weight=self.class_weight if self._one_hot else None,
            bootstrap=self.bootstrap,
        )

    @property
    def _one_hot(self) -> bool:
        """Whether labels are probabilities, so that class weights are part of the batches."""
        return self.mixer is not None or self.soft_targets is not None

    @property
    def _turns(self) -> np.ndarray:
        """For each step of an epoch, whether its batch is unlabelled: bool (steps,)."""
        from kpipe.data import steps

        further = self._unlabelled
        labelled = steps(self.manifest, "train", self.batch_size, self.sampling)
        return spread(labelled, further.steps_per_epoch if further else 0)

    @property
    def _unlabelled(self) -> PhotoDataset | None:
        """The photos without labels, changed like the others."""
        found = self.soft_targets.unlabelled if self.soft_targets else None
        if found is None:
            return None
        return dataclasses.replace(
            self,
            manifest=found.manifest,
            images=found.images,
            sampling=None,
            class_weight=None,
            resized_to=None,
            soft_targets=None,
            bootstrap=None,
            feature_source=None,
        )

    def _resize(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        import tensorflow as tf

        if self.resized_to is None:
            return batches
        size = (self.resized_to, self.resized_to)

        def shrink(images: tf.Tensor, *rest: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return (tf.image.resize(images, size, antialias=True), *rest)

        return batches.map(shrink, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def spread(labelled: int, unlabelled: int) -> np.ndarray:
    """Return for each step of an epoch whether its batch is unlabelled, spread evenly.

    Args:
        labelled: number of labelled batches.
        unlabelled: number of unlabelled batches.
    """
    import numpy as np

    steps = labelled + unlabelled
    done = np.arange(steps + 1) * unlabelled // steps
    return np.diff(done) > 0
