"""FilterPrune: a smaller, faster network that still knows.

model folder := what `kpipe.stages.shared.model_folder` says, and
                pruning.json  {"target", "latency_of", "stopped",
                               "rounds": [one row of `kpipe.prune.Round` each],
                               "sensitivity": {"whole", "scores", "max_pruning_ratio"} or None}
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from kpipe.atomic import write_text
from kpipe.core.fields import Between
from kpipe.core.stage import Context, Stage, stage
from kpipe.stages.fine_tune import OPTIMIZERS, Rate
from kpipe.stages.shared.model_folder import (
    begin,
    is_saved,
    join_histories,
    load_model,
    read_about,
    save_model,
)
from kpipe.stages.shared.photos import Photos
from kpipe.stages.shared.retraining import Weight, retrain, sample, unfreeze_but_normalization

if TYPE_CHECKING:
    import keras

    from kpipe.prune import PruneResult, Round, Sensitivity

__all__ = ["FilterPrune"]

Share = Annotated[float, Between(0, 1, strict=True)]
Part = Annotated[float, Between(0, 1)]
Evaluate = Callable[["keras.Model"], float]


@stage
class FilterPrune(Stage):
    """Rank the filters of the whole network, remove the lowest, retrain, repeat.

    Args:
        criterion: what ranks a filter, see `kpipe.prune.rank`; what looks at activations sees the
            training photos.
        macs: the share of multiply-accumulates to keep; 0.5 where nothing else is asked for.
        params: the share of parameters to keep, instead.
        latency_ms: the median milliseconds of one photo by LiteRT to reach, 1 thread, on this
            machine, instead. Each round then tries what it could remove and measures it, see
            `kpipe.prune.prune_filters`: keep the machine quiet.
        latency_of: the form of file whose latency is meant and told: "int8", "mixed", "float16",
            "dynamic", or None for float32.
        rounds: how many times filters are removed and the rest retrained.
        tolerance: validation accuracy that may be lost, in [0, 1]; the first round that loses more
            ends the rounds, and the one before it is what is kept. None keeps the last.
        sensitivity: validation accuracy, in [0, 1], that the removal of filters of one group alone
            may cost before any retraining; a scan of all groups finds how many that are. None
            limits no group.
        round_to: filters left in a group are a multiple of it.
        min_filters_fraction: the share of each group's filters that stay in any case.
        blocks: whether residual blocks may go as a whole for `latency_ms`; with `sensitivity`,
            which limits the groups in them, those that it scanned stay.
        epochs: of retraining after each round but the last.
        last_epochs: of retraining after the last round. Of each retraining, the epoch of the lowest
            validation loss is kept.
        soft_target_weight: what the answers of the unpruned network weigh beside the labels in the
            loss of the retraining, 0 or more; see `kpipe.train.Distiller`.
        feature_weight: what its features weigh, 0 or more: 40, with answers of 4, where
            photos are mixed and the network was trained as a whole; not where only its last
            layers were.
        optimizer: of the retraining; all layers train, but for normalizations that were frozen.
        learning_rate: its rate.
        batch_size: photos in a step.
    """

    needs: ClassVar = ("data", "model", "balance?", "augmentation?")
    gives: ClassVar = ("model",)
    publishes: ClassVar = ("model.keras",)
    packages: ClassVar = ("keras", "tensorflow")

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
    macs: Share | None = None
    params: Share | None = None
    latency_ms: Annotated[float, Between(0, strict=True)] | None = None
    latency_of: Literal["int8", "mixed", "float16", "dynamic"] | None = "int8"
    rounds: Annotated[int, Between(1)] = 4
    tolerance: Part | None = None
    sensitivity: Part | None = None
    round_to: Annotated[int, Between(1)] = 8
    min_filters_fraction: Part = 0.1
    blocks: bool = True
    epochs: Annotated[int, Between(1)] = 1
    last_epochs: Annotated[int, Between(1)] = 6
    soft_target_weight: Weight = 1.0
    feature_weight: Weight = 0.0
    optimizer: OPTIMIZERS = "adam"
    learning_rate: Rate = 5e-4
    # Small batches: after a removal, the number of steps is what is missing.
    batch_size: Annotated[int, Between(1)] = 16

    @property
    def target(self) -> dict[str, float]:
        """What is asked for, as `prune_filters` takes it."""
        asked = {"macs": self.macs, "params": self.params, "latency_ms": self.latency_ms}
        given = {name: value for name, value in asked.items() if value is not None}
        return given or {"macs": 0.5}

    def validation_errors(self) -> list[str]:
        given = ", ".join(f"{name}={value}" for name, value in self.target.items())
        contradiction = f"{given}: one target is enough" if len(self.target) > 1 else ""
        return super().validation_errors() or [contradiction] * bool(contradiction)

    def run(self, context: Context) -> None:
        if is_saved(context.folder):
            return
        import keras
        import numpy as np

        begin(context.seed)
        source = context.newest("model")
        model = load_model(source)
        photos = Photos.read(context, batch_size=self.batch_size)
        labels = photos.manifest.labels("validation")

        def answers(net: keras.Model) -> np.ndarray:
            return net.predict(photos.evaluation_dataset("validation"), verbose=0)

        def evaluate(net: keras.Model) -> float:
            return float((answers(net).argmax(axis=1) == labels).mean())

        def loss(net: keras.Model) -> float:
            of_photo = keras.losses.sparse_categorical_crossentropy(labels, answers(net))
            return float(np.mean(of_photo))

        scan, max_pruning_ratio = None, {}
        if self.sensitivity is not None:
            scan = self._scan(model, photos, evaluate, context)
            max_pruning_ratio = scan.max_pruning_ratio(self.sensitivity)
            whole = sum(share == 0 for share in max_pruning_ratio.values())
            context.journal.record(
                "note",
                text=f"sensitivity: {len(max_pruning_ratio)} groups of filters scanned, {whole} of "
                f"them lose more than {self.sensitivity:.1%} of accuracy with the smallest share "
                "and stay whole",
            )
        result = self._prune(model, photos, evaluate, loss, max_pruning_ratio, context)
        if result.stopped:
            context.journal.record("note", text=f"stopped: {result.stopped}; kept the round before")
        (context.folder / "pruning.json").write_text(
            json.dumps(
                {
                    "target": self.target,
                    "latency_of": self.latency_of or "float32",
                    "stopped": result.stopped,
                    "rounds": [dataclasses.asdict(row) for row in result.history],
                    "sensitivity": None
                    if scan is None
                    else {**dataclasses.asdict(scan), "max_pruning_ratio": max_pruning_ratio},
                }
            ),
            encoding="utf-8",
        )
        trained = range(1, len(result.history))
        join_histories(context.folder, (_training_of(context, n) for n in trained))
        about = read_about(source)
        save_model(result.model, context.folder, **{**about, "title": f"{about['title']}, pruned"})

    def _scan(
        self, model: keras.Model, photos: Photos, evaluate: Evaluate, context: Context
    ) -> Sensitivity:
        """The scan, kept, so that a run that was cut off has it."""
        from kpipe.prune import Sensitivity, scan_sensitivity

        kept = context.folder / "training-scan" / "sensitivity.json"
        if kept.exists():
            about = json.loads(kept.read_text(encoding="utf-8"))
            rows = about["scores"].items()
            scores = {name: {float(s): value for s, value in row.items()} for name, row in rows}
            return Sensitivity(about["whole"], scores)

        def tell(done: int, total: int) -> None:
            context.journal.progress("step", what="sensitivity", done=done, total=total)

        found = scan_sensitivity(
            model,
            evaluate,
            criterion=self.criterion,
            data=sample(photos),
            calibration=sample(photos),
            progress=tell,
        )
        write_text(kept, json.dumps(dataclasses.asdict(found)))
        return found

    def _prune(
        self,
        model: keras.Model,
        photos: Photos,
        evaluate: Evaluate,
        loss: Evaluate,
        max_pruning_ratio: dict[str, float],
        context: Context,
    ) -> PruneResult:
        from kpipe.lite import latency
        from kpipe.prune import Selection, prune_filters
        from kpipe.train import TrainingConfig

        plan = TrainingConfig(
            epochs=self.epochs,
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            schedule="cosine",
            class_weight=photos.fit_weight,
        )
        last = dataclasses.replace(plan, epochs=self.last_epochs)

        def finetune(smaller: keras.Model, number: int) -> None:
            unfreeze_but_normalization(smaller)
            varied = photos.varied(context.seed + number, 1.0)
            title = f"round {number} of {self.rounds}"
            chosen = last if number == self.rounds else plan
            retrain(
                smaller,
                model,
                varied,
                chosen,
                _training_of(context, number),
                context.journal,
                title,
                soft_target_weight=self.soft_target_weight,
                feature_weight=self.feature_weight,
            )

        def tried(done: int, total: int) -> None:
            context.journal.progress("step", what="removals tried", done=done, total=total)

        def tell(row: Round) -> None:
            found = f"{row.after:.1%} on validation"
            if row.round:
                found = f"{row.before:.1%} after removal, {row.after:.1%} retrained, on validation"
            context.journal.record(
                "note",
                text=f"round {row.round}: {row.macs / 1e6:.1f} M MACs ({row.share:.1%}), "
                f"{row.latency_ms:.2f} ms in {self.latency_of or 'float32'}; accuracy {found}",
            )

        return prune_filters(
            model,
            **self.target,
            latency=lambda net: latency(net, quantize=self.latency_of),
            criterion=self.criterion,
            rounds=self.rounds,
            tolerance=self.tolerance,
            finetune=finetune,
            evaluate=evaluate,
            loss=loss,
            calibration=sample(photos),
            selection=Selection(
                seed=context.seed,
                data=sample(photos),
                round_to=self.round_to,
                min_filters_fraction=self.min_filters_fraction,
                max_pruning_ratio=max_pruning_ratio,
                blocks=self.blocks,
            ),
            on_round=tell,
            progress=tried,
            folder=context.folder / "training",
        )


def _training_of(context: Context, number: int) -> Path:
    return context.folder / f"training-round-{number}"
