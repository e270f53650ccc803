"""The pruning of one model: the loop of `kpipe.prune` with a pipeline's photos and retraining."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from kpipe.core.stage import Context
from kpipe.stages.compression.kept_scan import read_scan, write_scan
from kpipe.stages.compression.retraining import (
    Lesson,
    retrain,
    retraining_rate,
    unfreeze_but_normalization,
)
from kpipe.stages.compression.validation import Validation
from kpipe.stages.photos.photo_dataset import PhotoDataset
from kpipe.stages.training.training_run import TrainingRun

if TYPE_CHECKING:
    import keras

    from kpipe.prune import PruneResult, Round, Sensitivity
    from kpipe.stages.filter_prune import FilterPrune

__all__ = ["FilterPruning"]


@dataclasses.dataclass(frozen=True)
class FilterPruning:
    """Prunes a model as a stage declares.

    Attributes:
        stage: the declaration.
        context: where the folders of its rounds and scan are.
        model: what is pruned.
        photos: to retrain with.
        validation: what it measures its losses on.
        lesson: what the retrained network learns from.
    """

    stage: FilterPrune
    context: Context
    model: keras.Model
    photos: PhotoDataset
    validation: Validation
    lesson: Lesson

    def folder_of_round(self, number: int) -> Path:
        return self.context.folder / f"training-round-{number}"

    def _run_of_round(self, number: int) -> TrainingRun:
        title = f"round {number} of {self.stage.rounds}"
        return TrainingRun(title, self.folder_of_round(number), self.context.journal)

    def scan(self) -> Sensitivity:
        """Scan the sensitivity of each group, or read the scan of an interrupted run."""
        from kpipe.prune import scan_sensitivity
        from kpipe.train import weights_digest

        kept = self.context.folder / "training-scan" / "sensitivity.json"
        scanned = f"{self.stage.criterion} of {weights_digest(self.model)}"
        if known := read_scan(kept, scanned):
            return known
        found = scan_sensitivity(
            self.model,
            self.validation.accuracy,
            criterion=self.stage.criterion,
            data=self.photos.sample(),
            calibration=self.photos.sample(),
            progress=lambda done, total: self._progress("sensitivity", done, total),
        )
        write_scan(kept, scanned, found)
        return found

    def note_sensitivity(self, max_pruning_ratio: dict[str, float], limit: float) -> None:
        whole = sum(ratio == 0 for ratio in max_pruning_ratio.values())
        self._note(
            f"sensitivity: {len(max_pruning_ratio)} groups of filters scanned, {whole} of them "
            f"lose more than {limit:.1%} of {len(self.photos.manifest.rows('validation')):,} "
            "validation photos with the smallest fraction and stay whole"
        )

    def prune(self, max_pruning_ratio: dict[str, float]) -> PruneResult:
        from kpipe.lite import latency
        from kpipe.prune import Selection, prune_filters

        stage = self.stage
        return prune_filters(
            self.model,
            **stage.target,
            latency=lambda net: latency(net, quantize=stage.latency_of),
            criterion=stage.criterion,
            rounds=stage.rounds,
            tolerance=stage.tolerance,
            finetune=self._retrain,
            evaluate=self.validation.accuracy
            if stage.tolerance is None
            else self.validation.correct,
            loss=self.validation.loss,
            calibration=self.photos.calibration(),
            selection=Selection(
                seed=self.context.seed,
                data=self.photos.sample(),
                round_to=stage.round_to,
                min_filters_fraction=stage.min_filters_fraction,
                max_pruning_ratio=max_pruning_ratio,
                blocks=stage.blocks,
            ),
            on_round=self._note_round,
            progress=lambda done, total: self._progress("removals tried", done, total),
            folder=self.context.folder / "training",
        )

    def _retrain(self, pruned: keras.Model, number: int) -> None:
        stage, epochs = self.stage, self._epochs(number)
        if epochs == 0:
            return
        unfreeze_but_normalization(pruned)
        retrain(
            pruned,
            self.lesson,
            self.photos.reseeded(self.context.seed + number),
            self._run_of_round(number),
            epochs=epochs,
            learning_rate=retraining_rate(pruned, stage.learning_rate, frozen=3e-4),
            optimizer=stage.optimizer,
            warmup=stage.warmup,
        )

    def _epochs(self, number: int) -> int:
        stage = self.stage
        return stage.last_epochs if number == stage.rounds else stage.epochs_between

    def _note_round(self, row: Round) -> None:
        accuracy = f"{row.after:.1%} on validation"
        if row.round:
            retrained = f", {row.after:.1%} retrained" if self._epochs(row.round) else ""
            accuracy = f"{row.before:.1%} after removal{retrained}, on validation"
        self._note(
            f"round {row.round}: {row.macs / 1e6:.1f} M MACs ({row.share:.1%}), "
            f"{row.latency_ms:.2f} ms in {self.stage.latency_of or 'float32'}; accuracy {accuracy}"
        )
        loss, tolerance = row.loss, self.stage.tolerance
        if loss and tolerance is not None and loss.loss > tolerance and loss.acceptable(tolerance):
            self._note(
                f"round {row.round}: {loss.describe('validation photos')}, more than the tolerance "
                f"of {tolerance:.1%}; the photos are too few to tell it from chance"
            )

    def _note(self, text: str) -> None:
        self.context.journal.record("note", text=text)

    def _progress(self, what: str, done: int, total: int) -> None:
        self.context.journal.progress("step", what=what, done=done, total=total)
