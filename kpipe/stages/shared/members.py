"""One network trained on the photos, alone or as a member of an ensemble.

phases := [the head alone, on features], last layers unfrozen in one phase or several
small  := phases at `low_res_size`, then a short one at full size (Touvron et al. 2019)
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kpipe.core.fingerprint import fingerprint
from kpipe.errors import TrainingError
from kpipe.stages.shared.model_folder import begin, is_saved, save_model
from kpipe.stages.shared.photos import Photos

if TYPE_CHECKING:
    import keras

    from kpipe.core.journal import Journal
    from kpipe.stages.fine_tune import FineTune
    from kpipe.train import (
        FeatureConfig,
        FitResult,
        Phase,
        TrainableLayers,
        TrainingConfig,
        TrainingData,
    )

__all__ = ["fit_on", "plan_phases", "train_member"]

_METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")


@dataclasses.dataclass(frozen=True)
class _Teller:
    """What the journal hears of a training."""

    journal: Journal
    title: str
    steps: int

    def note(self, text: str) -> None:
        self.journal.record("note", text=f"{self.title}{text}")

    def progress(self, of: str, done: int, total: int) -> None:
        self.journal.progress("step", what=f"{self.title}{of}", done=done, total=total)

    def epochs(self, begun: int, epochs: int) -> keras.callbacks.Callback:
        """A callback that tells epochs, of which some are over."""
        import keras

        return keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: self.progress("", batch + 1, self.steps),
            on_epoch_end=lambda epoch, logs: self.journal.record(
                "epoch",
                what=self.title,
                epoch=begun + epoch + 1,
                epochs=epochs,
                metrics={name: float(logs[name]) for name in _METRICS if name in logs},
            ),
        )

    def result(self, result: FitResult, switch_to: str | None) -> dict[str, Any]:
        """Tells how a training ended; the row of `history.json`."""
        if result.switched_at is not None:
            self.note(f": {switch_to} from epoch {result.switched_at + 1} on")
        self.note(f": kept epoch {result.best_epoch + 1}")
        row = {"title": self.title, **dataclasses.asdict(result)}
        # Where a training was cut off is no part of its result.
        row.pop("resumed_at")
        row["history"] = {
            name: [value if math.isfinite(value) else None for value in values]
            for name, values in result.history.items()
        }
        return row


def train_member(
    recipe: FineTune, photos: Photos, folder: Path, journal: Journal, title: str
) -> None:
    """Build one network, train it and leave it in a model folder; taken up where it was cut off.

    Args:
        recipe: what to build, and how to train it.
        photos: what to train on; its seed draws the head, the order and the augmentation.
        folder: where the model, its history and, on the way, its checkpoints go.
        journal: hears of each epoch.
        title: the name of this training.
    """
    if is_saved(folder):
        return
    begin(photos.seed)
    size, small = photos.image_size, recipe.low_res_size
    if small is not None and small >= size:
        raise TrainingError(
            f"low_res_size={small} is not smaller than the photos",
            expected=f"less than {size} pixels",
            fix="leave low_res_size out, or raise Data.image_size",
        )
    if small is None:
        model = _network(recipe, photos, size)
        rows = [_trained(model, plan_phases(recipe, photos, model), photos, folder, journal, title)]
    else:
        first, fewer = (
            _network(recipe, photos, small),
            dataclasses.replace(photos, shown_size=small),
        )
        phases = plan_phases(recipe, fewer, first)
        rows = [_trained(first, phases, fewer, folder, journal, f"{title} at {small} px")]
        # Built anew rather than resized: some networks pad by the size of the image.
        model = _network(recipe, photos, size)
        model.set_weights(first.get_weights())
        phases = [_finish(recipe, photos)]
        rows.append(_trained(model, phases, photos, folder, journal, f"{title} at {size} px"))
    (folder / "history.json").write_text(json.dumps(rows), encoding="utf-8")
    save_model(model, folder, title=title, recipe=recipe.configuration())


def _network(recipe: FineTune, photos: Photos, size: int) -> keras.Model:
    """What a recipe builds for photos of so many pixels a side."""
    from kpipe.train import backbone, classifier

    options = {} if recipe.alpha is None else {"alpha": recipe.alpha}
    base = backbone(recipe.backbone, image_size=size, weights=recipe.weights, **options)
    return classifier(base, len(photos.classes), dropout=recipe.dropout, seed=photos.seed)


def fit_on(
    model: keras.Model,
    photos: Photos,
    plan: TrainingConfig,
    folder: Path,
    journal: Journal,
    title: str,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Train a model on the photos, with checkpoints and `history.json` in a folder."""
    from kpipe.train import adapt_bn_momentum, fit

    adapt_bn_momentum(model, photos.steps)
    teller = _Teller(journal, title, photos.steps)
    result = fit(
        model,
        _training_data(photos),
        plan,
        folder=folder / "training",
        callbacks=[*callbacks, teller.epochs(0, plan.epochs)],
    )
    row = teller.result(result, _name(plan))
    (folder / "history.json").write_text(json.dumps([row]), encoding="utf-8")


def _trained(
    model: keras.Model,
    phases: Sequence[tuple[Phase, float]],
    photos: Photos,
    folder: Path,
    journal: Journal,
    title: str,
) -> dict[str, Any]:
    """Trains a model through phases, each with its decay of rates; its row of history.json."""
    from kpipe.train import LayerDecay, fit_phases

    teller = _Teller(journal, title, photos.steps)
    lengths = [phase.config.epochs for phase, _ in phases]

    def callbacks(number: int, unfrozen: TrainableLayers) -> list[keras.callbacks.Callback]:
        phase, decay = phases[number - 1]
        of = f", phase {number} of {len(phases)}" if len(phases) > 1 else ""
        count = phase.features.views if phase.features else 0
        features = f", on features of {count} view{'s' * (count > 1)}" if count else ""
        teller.note(f" at {photos.size} px{of}: {unfrozen}{features}")
        watching = [teller.epochs(sum(lengths[: number - 1]), sum(lengths))]
        return watching if decay == 1 else [LayerDecay(decay), *watching]

    result = fit_phases(
        model,
        _training_data(photos),
        [phase for phase, _ in phases],
        folder=folder / f"training-{photos.size}",
        callbacks=callbacks,
        progress=lambda done, total: teller.progress(": features", done, total),
    )
    return teller.result(result, _name(phases[-1][0].config))


def _training_data(photos: Photos) -> TrainingData:
    from kpipe.train import TrainingData

    validation = photos.evaluation_dataset("validation")
    return TrainingData(photos.training, photos.steps, validation, photos.names)


def plan_phases(recipe: FineTune, photos: Photos, model: keras.Model) -> list[tuple[Phase, float]]:
    """The phases that a recipe declares for a network, each with its decay of rates."""
    from kpipe.train import Phase, plan_unfreezing

    features = _features(recipe, photos, model) if recipe.cached_views else None
    plan = _planner(recipe, photos)
    phases = []
    if recipe.epochs_of_head:
        rate = recipe.head_learning_rate or 3 * recipe.learning_rate
        phases.append((Phase(plan(recipe.epochs_of_head, rate=rate), 0, features), 1.0))
        # Later phases see later epochs of the data, whose features are others.
        features = dataclasses.replace(features, folder=None) if features else None
    count = recipe.unfreeze_phases
    lasts: tuple[int | None, ...] = (recipe.retrain_last,)
    if count > 1:
        lasts = plan_unfreezing(model, count + 1, recipe.retrain_last)[1:]
    for number, last in enumerate(lasts, 1):
        is_last = number == count
        # What does not divide evenly goes to the last phase, which trains the most.
        each = recipe.epochs // count
        epochs = recipe.epochs - each * (count - 1) if is_last else each
        on = features if last == 0 else None
        phases.append((Phase(plan(epochs, switches=is_last), last, on), recipe.layer_decay))
    return phases


def _features(recipe: FineTune, photos: Photos, model: keras.Model) -> FeatureConfig:
    """Which features of the frozen backbone are computed, and where every run finds them."""
    from kpipe.train import (
        FeatureConfig,
        remove_unused_features,
        split_frozen,
        unfreeze,
        weights_digest,
    )

    varies = photos.augmenter or photos.mixer or photos.sampling
    plan = FeatureConfig(recipe.cached_views if varies else 1, photos.seed)
    if photos.shared is None:
        return plan
    unfreeze(model, 0)
    stem, _ = split_frozen(model)
    key = fingerprint(
        {
            "photos": photos.drawn_from,
            "backbone": [recipe.backbone, recipe.alpha, weights_digest(stem)],
            "views": plan.views,
            "version": recipe.version,
            "distributions": {name: version(name) for name in recipe.packages},
        }
    )
    remove_unused_features(photos.shared / "features")
    return dataclasses.replace(plan, folder=photos.shared / "features" / key)


def _finish(recipe: FineTune, photos: Photos) -> tuple[Phase, float]:
    from kpipe.train import Phase

    plan = _planner(recipe, photos)(recipe.full_res_epochs, rate=0.1 * recipe.learning_rate)
    return Phase(plan, recipe.retrain_last), recipe.layer_decay


def _planner(recipe: FineTune, photos: Photos) -> Callable[..., TrainingConfig]:
    """Makes the plan of a phase from its epochs; only the last phase switches."""
    from kpipe.train import SWATS, AtEpoch, OnPlateau, TrainingConfig

    when: Any = recipe.switch_when
    if when == "plateau":
        when = OnPlateau()
    elif when == "swats":
        when = SWATS(recipe.swats_tolerance)
    else:
        when = AtEpoch(when)

    def plan(epochs: int, switches: bool = False, rate: float | None = None) -> TrainingConfig:
        switches = switches and recipe.switch_to is not None
        return TrainingConfig(
            epochs=epochs,
            optimizer=recipe.optimizer,
            learning_rate=rate or recipe.learning_rate,
            schedule=recipe.schedule,
            switch_to=recipe.switch_to if switches else None,
            switch_learning_rate=recipe.switch_learning_rate if switches else None,
            switch_when=when if switches else None,
            class_weight=photos.fit_weight,
            label_smoothing=recipe.label_smoothing,
            ema_momentum=recipe.ema_momentum,
            patience=recipe.patience,
        )

    return plan


def _name(plan: TrainingConfig) -> str | None:
    return plan.switch_to if isinstance(plan.switch_to, str) else None
