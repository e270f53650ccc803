"""Training on photos, recorded in the journal and in a folder.

folder := training*/    checkpoints
          history.json  [{"title", "history", "switched_at", "best_epoch"}, ...]
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kpipe.stages.photos.photo_dataset import PhotoDataset

if TYPE_CHECKING:
    import keras

    from kpipe.core.journal import Journal
    from kpipe.train import FitResult, Phase, TrainableLayers, TrainingConfig

__all__ = ["TrainingRun"]

_METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")


@dataclasses.dataclass(frozen=True)
class TrainingRun:
    """One training run of a network.

    Attributes:
        title: its name in the journal.
        folder: for its checkpoints and its history.
        journal: records its epochs.
    """

    title: str
    folder: Path
    journal: Journal

    def fit(
        self,
        model: keras.Model,
        photos: PhotoDataset,
        config: TrainingConfig,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> None:
        """Train a model on the photos, and write `history.json`."""
        from kpipe.train import adapt_bn_momentum, fit

        adapt_bn_momentum(model, photos.steps_per_epoch)
        result = fit(
            model,
            photos.training_data(),
            config,
            folder=self.folder / "training",
            callbacks=[*callbacks, self._epoch_recorder(photos.steps_per_epoch, config.epochs)],
        )
        self.write_history([self._summary(result, config)])

    def fit_phases(
        self, model: keras.Model, photos: PhotoDataset, phases: Sequence[Phase]
    ) -> dict[str, Any]:
        """Train a model in phases; return a row of `history.json`."""
        from kpipe.train import fit_phases

        lengths = [phase.config.epochs for phase in phases]

        def callbacks(number: int, unfrozen: TrainableLayers) -> list[keras.callbacks.Callback]:
            phase = phases[number - 1]
            which = f", phase {number} of {len(phases)}" if len(phases) > 1 else ""
            views = phase.features.views if phase.features else 0
            features = f", on features of {views} view{'s' * (views > 1)}" if views else ""
            self.note(f" at {photos.input_size} px{which}: {unfrozen}{features}")
            done = sum(lengths[: number - 1])
            return [self._epoch_recorder(photos.steps_per_epoch, sum(lengths), done)]

        result = fit_phases(
            model,
            photos.training_data(),
            phases,
            folder=self.folder / f"training-{photos.input_size}",
            callbacks=callbacks,
            progress=lambda done, total: self._progress(": features", done, total),
        )
        return self._summary(result, phases[-1].config)

    def write_history(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write `history.json`, one row for each fit."""
        (self.folder / "history.json").write_text(json.dumps(rows), encoding="utf-8")

    def note(self, text: str) -> None:
        """Record a note that begins with the title."""
        self.journal.record("note", text=f"{self.title}{text}")

    def _progress(self, what: str, done: int, total: int) -> None:
        self.journal.progress("step", what=f"{self.title}{what}", done=done, total=total)

    def _epoch_recorder(self, steps: int, epochs: int, done: int = 0) -> keras.callbacks.Callback:
        """Return a callback that records each epoch, after `done` epochs of earlier phases."""
        import keras

        return keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: self._progress("", batch + 1, steps),
            on_epoch_end=lambda epoch, logs: self.journal.record(
                "epoch",
                what=self.title,
                epoch=done + epoch + 1,
                epochs=epochs,
                metrics={name: float(logs[name]) for name in _METRICS if name in logs},
            ),
        )

    def _summary(self, result: FitResult, config: TrainingConfig) -> dict[str, Any]:
        """Record how the training ended, and return the row of `history.json`."""
        if result.switched_at is not None:
            switch_to = config.switch_to if isinstance(config.switch_to, str) else None
            self.note(f": {switch_to} from epoch {result.switched_at + 1} on")
        self.note(f": kept epoch {result.best_epoch + 1}")
        row = {"title": self.title, **dataclasses.asdict(result)}
        row.pop("resumed_at")  # an interruption is no part of the result
        row["history"] = {
            name: [value if math.isfinite(value) else None for value in values]
            for name, values in result.history.items()
        }
        return row
