"""Distill: an ensemble, or the newest network, taught to a smaller one.

model folder := that of `kpipe.stages.shared.model_folder`, and
                unlabelled.csv   path, kind, detail of files of `unlabelled` that were left out
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from kpipe.core.fields import Between
from kpipe.core.stage import Context, Stage, stage
from kpipe.errors import DataError
from kpipe.stages.compression.soft_targets import SoftTargets, Unlabelled
from kpipe.stages.compression.teachers import TaughtStage
from kpipe.stages.data import IMAGE_CACHE
from kpipe.stages.fine_tune import FineTune
from kpipe.stages.photos.photo_dataset import PhotoDataset
from kpipe.stages.photos.problem_notes import record_problems
from kpipe.stages.shared.model_folder import is_saved, reset_keras
from kpipe.stages.training.network_training import train_network
from kpipe.stages.training.recipe import Recipe
from kpipe.stages.training.training_run import TrainingRun

__all__ = ["Distill"]


@stage
class Distill(Recipe, TaughtStage):
    """Train a smaller network on the predictions of an ensemble or of the newest network.

    It trains in the phases of `FineTune`, on labels mixed with the teacher's predictions for the
    same augmented photo. Photos without labels have these predictions alone.

    Args:
        backbone: the architecture of the student, and all further fields of `FineTune`.
        teacher: "ensemble", "model" for the newest network, or "auto" for the one with the lower
            cross-entropy on validation.
        soft_target_weight: weight of its predictions relative to the labels, above 0.
        unlabelled: a folder of further photos without labels, at any depth. Photos of the test
            split and their look-alikes are an error, those of validation are left out.

    Example:
        >>> from kpipe.stages import Distill
        >>> Distill("MobileNetV2", alpha=0.35, unlabelled="more").title
        'MobileNetV2 0.35, distilled'
    """

    needs: ClassVar = ("data", "model?", "ensemble?", "balance?", "augmentation?")
    gives: ClassVar = ("model",)
    publishes: ClassVar = ("model.keras",)
    packages: ClassVar = ("keras", "tensorflow", "imagehash", "pillow")
    # It trains as FineTune does: tens count its own changes, units those of FineTune.
    version: ClassVar = 10 + FineTune.version

    teacher: Literal["auto", "model", "ensemble"] = "auto"
    soft_target_weight: Annotated[float, Between(0, strict=True)] = 4.0
    unlabelled: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "unlabelled", str(self.unlabelled))

    @property
    def recipe(self) -> FineTune:
        """The training without a teacher."""
        names = [field.name for field in dataclasses.fields(Recipe)]
        return FineTune(**{name: getattr(self, name) for name in names})

    @property
    def title(self) -> str:
        """The name of the network in tables."""
        return f"{self.recipe.title}, distilled"

    def sources(self) -> tuple[Path, ...]:
        further = (Path(self.unlabelled),) if self.unlabelled else ()
        return (*self.recipe.sources(), *further)

    def conflicts(self, earlier: Sequence[Stage]) -> list[str]:
        return [*super().conflicts(earlier), *self.recipe.conflicts(earlier)]

    def check_surroundings(self, earlier: Sequence[Stage]) -> list[str]:
        folder = Path(self.unlabelled)
        if self.unlabelled and folder.exists() and not folder.is_dir():
            raise DataError(
                f"unlabelled={self.unlabelled!r} is not a folder",
                expected="a folder of photos, at any depth",
            )
        if self.unlabelled and folder.is_dir():
            from kpipe.data.reading.folders import listed_photos

            if next(listed_photos(folder, []), None) is None:
                raise DataError(
                    f"unlabelled={self.unlabelled!r} is a folder without files",
                    expected="photos, in folders of any depth",
                )
        return self.recipe.check_surroundings(earlier)

    def rehearse(self, earlier: Sequence[Stage]) -> None:
        self.recipe.rehearse(earlier)

    def run(self, context: Context) -> None:
        if is_saved(context.folder):
            return
        reset_keras(context.seed)
        photos = PhotoDataset.read(context, batch_size=self.batch_size)
        teacher = self.find_teacher(context, photos)
        assert teacher is not None  # `conflicts` and the range of its weight see to that
        further = _read_unlabelled(self.unlabelled, photos, context) if self.unlabelled else None
        targets = SoftTargets(teacher, self.soft_target_weight, further)
        run = TrainingRun(self.title, context.folder, context.journal)
        train_network(self.recipe, dataclasses.replace(photos, soft_targets=targets), run)


def _read_unlabelled(root: str, photos: PhotoDataset, context: Context) -> Unlabelled:
    """Read the photos, or what an interrupted run has read."""
    import numpy as np

    from kpipe.data import Manifest, decode
    from kpipe.data.manifest import write_table
    from kpipe.data.reading.scanning import ScanOptions
    from kpipe.data.reading.unlabelled import unlabelled_photos

    # Removed with the checkpoints when the network is saved.
    folder = context.folder / "training-unlabelled"
    if (folder / "images.npy").exists():
        return Unlabelled(Manifest.load(folder), np.load(folder / "images.npy", mmap_mode="r"))

    def progress(done: int, total: int) -> None:
        context.journal.progress("step", what="unlabelled photos", done=done, total=total)

    about = json.loads((context.newest("data") / "data.json").read_text(encoding="utf-8"))
    cache = context.shared / IMAGE_CACHE if context.shared else None
    options = ScanOptions(None, cache, progress, context.known_digests)
    manifest = unlabelled_photos(root, photos.manifest, options)
    context.journal.record("note", text=f"{len(manifest.table)} unlabelled photos of {root}")
    record_problems(manifest.problems, context.journal)
    write_table(manifest.problems, context.folder / "unlabelled.csv", spreadsheet=True)
    manifest.save(folder)
    images = decode(manifest, photos.image_size, folder, progress, background=about["background"])
    return Unlabelled(manifest, images)
