"""FilterPrune: remove filters and blocks, for a smaller and faster network.

model folder := that of `kpipe.stages.shared.model_folder`, and
                pruning.json   {"target", "latency_of", "stopped",
                                "rounds": [the fields of a `kpipe.prune.Round`, ...],
                                "sensitivity": {"whole", "scores", "max_pruning_ratio"} or None}
                measured.json  {"latency_ms": [of each round]}
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from kpipe.core.fields import Between
from kpipe.core.stage import Context, Stage, stage
from kpipe.core.store import MEASURED
from kpipe.stages.compression.filter_pruning import FilterPruning
from kpipe.stages.compression.retraining import Lesson
from kpipe.stages.compression.target_checks import refuse_unreachable_target, target_conflicts
from kpipe.stages.compression.teachers import TaughtStage, TeacherChoice
from kpipe.stages.compression.validation import Validation
from kpipe.stages.photos.photo_dataset import PhotoDataset
from kpipe.stages.shared.field_types import (
    LearningRate,
    LossWeight,
    NonNegativeInt,
    OpenUnitInterval,
    Optimizer,
    PositiveInt,
    UnitInterval,
)
from kpipe.stages.shared.model_folder import (
    is_saved,
    join_histories,
    load_model,
    read_metadata,
    reset_keras,
    save_model,
)

__all__ = ["FilterPrune"]


@stage
class FilterPrune(TaughtStage):
    """Rank the filters of a network, remove the lowest, refit what reads them, retrain, repeat.

    Args:
        criterion: how to rank filters, see `kpipe.prune.rank`; criteria of activations use the
            training photos.
        macs: fraction of multiply-accumulates to keep, in (0, 1); 0.5 if no target is given.
        params: fraction of parameters to keep, in (0, 1), as the target instead.
        latency_ms: median latency of one photo in milliseconds, by LiteRT with 1 thread on this
            machine, as the target instead. Each round measures possible removals, see
            `kpipe.prune.prune_filters`: keep the machine quiet.
        latency_of: the export format whose latency is measured: "int8", "mixed", "float16",
            "dynamic", or None for float32.
        rounds: number of times to remove filters and retrain.
        tolerance: validation accuracy that may be lost, in [0, 1]; the first round that loses more,
            beyond chance, stops the pruning, and the round before it is kept. None sets no limit.
        sensitivity: validation accuracy, in [0, 1], that removing filters of a single group may
            cost before retraining; a scan of all groups finds how many that is. None sets no
            limit. Choose more than the fraction of one photo.
        round_to: keep a multiple of this number of filters in each group.
        min_filters_fraction: minimum fraction of filters to keep in each group.
        blocks: whether a `latency_ms` target may remove whole residual blocks; with `sensitivity`,
            blocks with a scanned group are kept.
        epochs: epochs of retraining after each round but the last; None for 0, or for 1 with a
            `tolerance`, which judges each round.
        last_epochs: epochs of retraining after the last round. Each retraining keeps the epoch
            with the lowest validation loss.
        teacher: whose predictions the retraining learns beside the labels: "model" for the
            unpruned network, "ensemble", "auto" for the one with the lower cross-entropy on
            validation, or None.
        soft_target_weight: weight of these predictions in the loss, 0 or more, relative to the
            labels; see `kpipe.train.Distiller`.
        feature_weight: weight of the unpruned network's features, 0 or more: 40, with
            `soft_target_weight=4`, if photos are mixed and the whole network was trained; 0 if only
            its last layers were.
        optimizer: of the retraining; all layers train except normalizations that were frozen.
        learning_rate: initial learning rate of the retraining; None for 3e-4 if any normalization
            is frozen, as `FineTune` leaves it, else 5e-4.
        warmup: fraction of a retraining in which the learning rate rises to its peak.
        batch_size: photos in a training step.

    Example:
        >>> from kpipe.stages import FilterPrune
        >>> FilterPrune().target, FilterPrune(latency_ms=2.0, rounds=6).target
        ({'macs': 0.5}, {'latency_ms': 2.0})
        >>> FilterPrune(macs=0.5, params=0.3).validation_errors()
        ['macs=0.5, params=0.3: only one target is allowed']
        >>> FilterPrune().epochs_between, FilterPrune(tolerance=0.02).epochs_between
        (0, 1)
    """

    needs: ClassVar = ("data", "model", "ensemble?", "balance?", "augmentation?")
    gives: ClassVar = ("model",)
    publishes: ClassVar = ("model.keras",)
    packages: ClassVar = ("keras", "tensorflow")
    # 2: a tolerance stops only for a loss beyond chance; 3: learns from an ensemble; 4: refits
    # 5: frozen normalizations are folded, which rounds differently
    version: ClassVar = 5

    criterion: Literal[
        "apoz",
        "bn_scale",
        "geometric_median",
        "l1",
        "l2",
        "mean_activation",
        "random",
        "reconstruction",
        "taylor",
    ] = "reconstruction"
    macs: OpenUnitInterval | None = None
    params: OpenUnitInterval | None = None
    latency_ms: Annotated[float, Between(0, strict=True)] | None = None
    latency_of: Literal["int8", "mixed", "float16", "dynamic"] | None = "int8"
    rounds: PositiveInt = 4
    tolerance: UnitInterval | None = None
    sensitivity: UnitInterval | None = None
    round_to: PositiveInt = 8
    min_filters_fraction: UnitInterval = 0.1
    blocks: bool = True
    epochs: NonNegativeInt | None = None
    last_epochs: PositiveInt = 20
    teacher: TeacherChoice = "auto"
    soft_target_weight: LossWeight = 1.0
    feature_weight: LossWeight = 0.0
    optimizer: Optimizer = "adam"
    learning_rate: LearningRate | None = None
    warmup: Annotated[float, Between(0, 0.9)] = 0.0
    # Small batches: after a removal, the number of steps limits how much accuracy comes back.
    batch_size: PositiveInt = 16

    @property
    def target(self) -> dict[str, float]:
        """The target as arguments of `kpipe.prune.prune_filters`."""
        targets = {"macs": self.macs, "params": self.params, "latency_ms": self.latency_ms}
        declared = {name: value for name, value in targets.items() if value is not None}
        return declared or {"macs": 0.5}

    @property
    def epochs_between(self) -> int:
        """Epochs of retraining after each round but the last."""
        return int(self.tolerance is not None) if self.epochs is None else self.epochs

    def validation_errors(self) -> list[str]:
        return super().validation_errors() or target_conflicts(
            self.target, self.min_filters_fraction
        )

    def rehearse(self, earlier: Sequence[Stage]) -> None:
        refuse_unreachable_target(earlier, self.target, self.round_to, self.min_filters_fraction)

    def run(self, context: Context) -> None:
        if is_saved(context.folder):
            return
        reset_keras(context.seed)
        source = context.newest("model")
        model, photos = load_model(source), PhotoDataset.read(context, batch_size=self.batch_size)
        teacher = self.find_teacher(context, photos)
        lesson = Lesson(teacher, model, self.soft_target_weight, self.feature_weight)
        pruning = FilterPruning(self, context, model, photos, Validation(photos), lesson)
        scan, max_pruning_ratio = None, {}
        if self.sensitivity is not None:
            scan = pruning.scan()
            max_pruning_ratio = scan.max_pruning_ratio(self.sensitivity)
            pruning.note_sensitivity(max_pruning_ratio, self.sensitivity)
        result = pruning.prune(max_pruning_ratio)
        if result.stopped:
            context.journal.record("note", text=f"stopped: {result.stopped}; kept the round before")
        rounds = [dataclasses.asdict(row) for row in result.history]
        latencies = [row.pop("latency_ms") for row in rounds]
        rounds = [{k: v for k, v in row.items() if (k, v) != ("loss", None)} for row in rounds]
        scores = scan and {**dataclasses.asdict(scan), "max_pruning_ratio": max_pruning_ratio}
        report = {
            "target": self.target,
            "latency_of": self.latency_of or "float32",
            "stopped": result.stopped,
            "rounds": rounds,
            "sensitivity": scores,
        }
        (context.folder / "pruning.json").write_text(json.dumps(report), encoding="utf-8")
        measured = json.dumps({"latency_ms": latencies})
        (context.folder / MEASURED).write_text(measured, encoding="utf-8")
        rounds_of = map(pruning.folder_of_round, range(1, len(result.history)))
        join_histories(context.folder, filter(Path.exists, rounds_of))
        metadata = read_metadata(source)
        metadata["title"] += ", pruned"
        save_model(result.model, context.folder, **metadata)
