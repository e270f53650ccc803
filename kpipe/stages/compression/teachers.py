"""Which network teaches the one that a stage trains.

teacher := "model"      the newest network, as it was before the stage
           "ensemble"   the newest ensemble
           "auto"       the one of the two with the lower cross-entropy on validation
           None         none: the stage trains on labels alone
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kpipe.core.stage import Context, Stage
from kpipe.errors import TrainingError
from kpipe.stages.compression.validation import Validation
from kpipe.stages.photos.photo_dataset import PhotoDataset
from kpipe.stages.shared.model_folder import load_model, read_metadata

if TYPE_CHECKING:
    import keras

__all__ = ["TaughtStage", "Teacher", "TeacherChoice"]

TeacherChoice = Literal["auto", "model", "ensemble"] | None

# Kind of a result -> what usually makes it.
_MAKERS = {"model": "FineTune(...)", "ensemble": "Ensemble(...)"}


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A network that teaches.

    Attributes:
        model: photos at the size of the student's -> probabilities.
        digest: the sha256 of its file.
    """

    model: keras.Model
    digest: str


class TaughtStage(Stage):
    """The base of the stages that learn from a teacher; each declares the fields below."""

    teacher: TeacherChoice
    soft_target_weight: float
    feature_weight: float = 0.0

    @property
    def effective_needs(self) -> tuple[str, ...]:
        if self.teacher in ("auto", "ensemble"):
            return self.needs
        return tuple(need for need in self.needs if need != "ensemble?")

    def validation_errors(self) -> list[str]:
        return super().validation_errors() or self._weight_conflicts()

    def conflicts(self, earlier: Sequence[Stage]) -> list[str]:
        given = {kind.rstrip("?") for stage in earlier for kind in stage.gives}
        if self.teacher is None or given.intersection(self._kinds):
            return []
        wanted = " or ".join(_MAKERS[kind] for kind in self._kinds)
        return [
            f'teacher="{self.teacher}": no earlier stage makes one; add {wanted} before {self.name}'
        ]

    def find_teacher(self, context: Context, photos: PhotoDataset) -> Teacher | None:
        """Load the teacher that is declared, and record in the journal which it is.

        Args:
            context: of the stage; "model" and "ensemble" are inputs.
            photos: the student's photos; those of validation decide for "auto".

        Raises:
            TrainingError: the teacher has other classes than the photos.
        """
        if self.teacher is None or not (self.soft_target_weight or self.feature_weight):
            return None
        folders = [folder for kind in self._kinds if (folder := context.optional(kind)) is not None]
        candidates = [_Candidate(folder, photos) for folder in folders]
        chosen = candidates[0]
        reason = ""
        if len(candidates) > 1:
            losses = [Validation(photos).loss(candidate.model) for candidate in candidates]
            network, ensemble = candidates
            chosen = ensemble if losses[1] < losses[0] else network
            figures = [f"{c.title} {loss:.4f}" for c, loss in zip(candidates, losses, strict=True)]
            reason = f"; cross-entropy on validation: {', '.join(figures)}"
        context.journal.record("note", text=f"teacher: {chosen.title}{reason}")
        return Teacher(chosen.model, chosen.digest)

    @property
    def _kinds(self) -> tuple[str, ...]:
        """The kinds of results among which the teacher is."""
        return tuple(_MAKERS) if self.teacher == "auto" else (str(self.teacher),)

    def _weight_conflicts(self) -> list[str]:
        if self.teacher is None and self.feature_weight:
            return [f"feature_weight={self.feature_weight}: has no effect with teacher=None"]
        unused = self.teacher == "ensemble" or (self.teacher == "model" and not self.feature_weight)
        if unused and not self.soft_target_weight:
            return [f"teacher={self.teacher!r}: has no effect with soft_target_weight=0"]
        return []


class _Candidate:
    """A model that may teach, and the title of its folder."""

    def __init__(self, folder: Path, photos: PhotoDataset) -> None:
        self.digest = hashlib.sha256((folder / "model.keras").read_bytes()).hexdigest()
        self.title = read_metadata(folder)["title"]
        self.model = _at_size_of_photos(load_model(folder), self.title, photos)


def _at_size_of_photos(model: keras.Model, title: str, photos: PhotoDataset) -> keras.Model:
    """Return the model for photos of their size, or refuse its classes."""
    import keras

    classes = model.output_shape[-1]
    if classes != len(photos.classes):
        raise TrainingError(
            f"the teacher, {title}, has other classes than the photos",
            expected=f"{len(photos.classes)} classes: {', '.join(photos.classes[:10])}",
            received=f"{classes} classes",
            fix='train the teacher on the same classes, or write teacher="model"',
        )
    size, photo = model.input_shape[1:3], photos.image_size
    if size in ((photo, photo), (None, None)):
        return model
    # An ensemble may look at larger photos than the student does.
    pixels = keras.Input((photo, photo, 3))
    return keras.Model(pixels, model(keras.layers.Resizing(*size)(pixels)))
