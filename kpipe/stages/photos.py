"""Data, Balance and Augment: photos on their way to `model.fit`.

data folder         := manifest, images.npy, problems; data.json {"image_size", "classes"}
balance folder      := balance.json {"method", "class_weight": [one factor per class]}
augmentation folder := augmentation.json, the fields of an Augmenter
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from kpipe.core.fields import Between
from kpipe.core.stage import Context, Stage, stage
from kpipe.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from kpipe.data import Augmenter, Manifest

__all__ = ["Augment", "Balance", "Data", "Photos"]

Share = Annotated[float, Between(0, 1)]
# No split may be empty: training looks at the second, the proof of the exported files at the third.
Part = Annotated[float, Between(0, 1, strict=True)]


@stage
class Data(Stage):
    """Labelled photos, split and decoded once.

    Args:
        source: a folder `class/photo`, a folder `train|validation|test/class/photo`, or a CSV file.
        image_size: pixels of the square that the network sees.
        split: shares of train, validation and test; splits that the source declares are kept.
        image: of a CSV, the column with the path of a photo.
        label: of a CSV, the column with its label.
        root: of a CSV, the folder that its paths start from; empty for the CSV's own.
        classes: of a CSV, label as it stands in the file -> name of the class; rows with another
            label are left out, and told. Empty: every label is a class.
        csv: of a CSV, options of `pandas.read_csv`, such as `{"sep": ";"}`.
        max_unreadable: the share of files above which unreadable ones end the run.
    """

    gives: ClassVar = ("data",)
    distributions: ClassVar = ("pandas", "pillow")

    source: str
    image_size: Annotated[int, Between(16, 4096)] = 224
    split: tuple[Part, Part, Part] = (0.7, 0.15, 0.15)
    image: str = ""
    label: str = ""
    root: str = ""
    classes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    csv: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    max_unreadable: Share = 0.05

    def __post_init__(self) -> None:
        # A path is welcome; the declaration keeps its text.
        for name in ("source", "root"):
            object.__setattr__(self, name, str(getattr(self, name)))

    @property
    def is_table(self) -> bool:
        """Whether the source is a CSV rather than a folder."""
        return bool(self.image or self.label)

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.is_table and not (self.image and self.label):
            problems.append("image and label: a CSV needs both columns named")
        if not problems and abs(sum(self.split) - 1) > 1e-6:
            problems.append(f"split={self.split!r}: expected shares that add up to 1")
        if not problems and (taken := sorted(self.configuration().keys() & self.csv.keys())):
            problems.append(f"csv={self.csv!r}: {', '.join(taken)} are fields of Data itself")
        return problems

    def sources(self) -> tuple[Path, ...]:
        source = Path(self.source)
        if not self.is_table or not source.is_file():
            return (source,)
        from kpipe.data import photos_of_csv

        listed = photos_of_csv(source, image=self.image, root=self.root or None, **self.csv)
        return (source, *(path for path in listed if path.is_file()))

    def run(self, context: Context) -> None:
        from kpipe.data import decode, from_csv, from_folder, split

        def reading(done: int, total: int) -> None:
            context.journal.progress("step", what="reading photos", done=done, total=total)

        def decoding(done: int, total: int) -> None:
            context.journal.progress("step", what="decoding photos", done=done, total=total)

        limits: dict[str, Any] = {"max_unreadable": self.max_unreadable, "progress": reading}
        if self.is_table:
            manifest = from_csv(
                self.source,
                image=self.image,
                label=self.label,
                root=self.root or None,
                classes=dict(self.classes) or None,
                **limits,
                **self.csv,
            )
        else:
            manifest = from_folder(self.source, **limits)
        manifest = split(manifest, self.split, context.seed)
        manifest.save(context.folder)
        decode(manifest, self.image_size, context.folder, progress=decoding)
        _tell(manifest, context)
        about = {"image_size": self.image_size, "classes": list(manifest.classes)}
        (context.folder / "data.json").write_text(json.dumps(about), encoding="utf-8")


def _tell(manifest: Manifest, context: Context) -> None:
    counts = manifest.counts()
    rows = ", ".join(
        f"{label} {'/'.join(str(int(n)) for n in counts.loc[label])}" for label in manifest.classes
    )
    context.journal.record(
        "note", text=f"{len(manifest.table)} photos; train/validation/test: {rows}"
    )
    for kind, found in manifest.problems.groupby("kind", sort=True):
        named = [f"{row.path} ({row.detail})" for row in found.itertuples()]
        # All of them stand in the report; a label that was left out on purpose needs no list here.
        shown = named[:1] if kind == "label not declared" else named[:20]
        more = f", and {len(named) - len(shown)} more" if len(named) > len(shown) else ""
        context.journal.record("note", text=f"{len(named)} x {kind}: {', '.join(shown)}{more}")


@stage
class Balance(Stage):
    """Uneven classes made even.

    Args:
        method: "class_weight" counts the photos of a rare class more in the loss.
    """

    needs: ClassVar = ("data",)
    gives: ClassVar = ("balance",)
    distributions: ClassVar = ("scikit-learn",)

    method: Literal["class_weight"] = "class_weight"

    def run(self, context: Context) -> None:
        from kpipe.data import Manifest, class_weight

        manifest = Manifest.load(context.newest("data"))
        weights = class_weight(manifest.labels("train"), range(len(manifest.classes)))
        told = ", ".join(f"{name} x{weights[i]:.2f}" for i, name in enumerate(manifest.classes))
        context.journal.record("note", text=f"class weights: {told}")
        about = {
            "method": self.method,
            "class_weight": [weights[i] for i in range(len(manifest.classes))],
        }
        (context.folder / "balance.json").write_text(json.dumps(about), encoding="utf-8")


@stage
class Augment(Stage):
    """Each photo changed anew in each epoch, its label kept; see `kpipe.data.Augmenter`.

    Args:
        flip: the axes along which half of the photos are mirrored.
        rotate: the largest rotation, as a share of a full turn.
        brightness: the largest change, as a share of the value range.
        contrast: the largest relative change.
        color: the strength of changes of saturation and hue.
        blur: the share of photos that are blurred.
        crop: the smallest share of the side that a random crop keeps; 1 crops nothing.
    """

    needs: ClassVar = ("data",)
    gives: ClassVar = ("augmentation",)

    flip: Literal["horizontal", "vertical", "horizontal_and_vertical", ""] = "horizontal"
    rotate: Annotated[float, Between(0, 0.5)] = 0.05
    brightness: Share = 0.1
    contrast: Share = 0.1
    color: Share = 0.1
    blur: Share = 0.0
    crop: Annotated[float, Between(0.1, 1)] = 0.9

    def run(self, context: Context) -> None:
        (context.folder / "augmentation.json").write_text(
            json.dumps(self.configuration()), encoding="utf-8"
        )


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
