"""FineTune: a pretrained network whose last layers learn the user's classes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from kpipe.core.fields import Between
from kpipe.core.stage import Context, Stage, stage
from kpipe.errors import nearest
from kpipe.stages.models import begin, is_saved, save_model
from kpipe.stages.photos import Photos

if TYPE_CHECKING:
    import keras

    from kpipe.core.journal import Journal
    from kpipe.train import FitPlan

__all__ = ["OPTIMIZERS", "FineTune", "Rate", "Recipe", "fit_on", "train_member"]

OPTIMIZERS = Literal["sgd", "adam", "adamw", "rmsprop", "adadelta"]
_METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")
Rate = Annotated[float, Between(0, strict=True)]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one network is trained: the fields of a FineTune, as its result's folder keeps them."""

    backbone: str
    alpha: float | None
    weights: str | None
    retrain_last: int | None
    dropout: float
    optimizer: str
    learning_rate: float
    switch_to: str | None
    switch_when: int | str
    switch_learning_rate: float | None
    schedule: str
    epochs: int
    batch_size: int

    @property
    def title(self) -> str:
        """The network's name in tables."""
        return self.backbone if self.alpha is None else f"{self.backbone} {self.alpha:g}"


@stage
class FineTune(Stage):
    """Retrain the last layers of a pretrained network.

    Args:
        backbone: a constructor of `keras.applications`, or "EfficientNetLite0".
        alpha: the width of a MobileNet; None for architectures without it.
        weights: "imagenet", a weights file, or None for random ones.
        retrain_last: how many of the backbone's last layers train beside the new head; None for
            all, 0 for the head alone.
        dropout: the share of features dropped before the head.
        optimizer: the first optimizer.
        learning_rate: its rate.
        switch_to: the optimizer to go on with, or None.
        switch_when: "plateau" (no lower validation loss for two epochs), or the epoch.
        switch_learning_rate: the rate after the switch; None keeps the first.
        schedule: of each optimizer's rate.
        epochs: epochs in all; the weights of the one with the lowest validation loss are kept.
        batch_size: photos in a step.
    """

    needs: ClassVar = ("data", "balance?", "augmentation?")
    gives: ClassVar = ("model",)
    publishes: ClassVar = ("model.keras",)
    distributions: ClassVar = ("keras", "tensorflow")

    backbone: str
    alpha: Annotated[float, Between(0, 2, strict=True)] | None = None
    weights: str | None = "imagenet"
    retrain_last: Annotated[int, Between(0)] | None = 30
    dropout: Annotated[float, Between(0, 0.95)] = 0.2
    optimizer: OPTIMIZERS = "adam"
    learning_rate: Rate = 1e-3
    switch_to: OPTIMIZERS | None = None
    switch_when: Annotated[int, Between(1)] | Literal["plateau"] = "plateau"
    switch_learning_rate: Rate | None = None
    schedule: Literal["constant", "cosine"] = "constant"
    epochs: Annotated[int, Between(1)] = 20
    batch_size: Annotated[int, Between(1)] = 32

    def sources(self) -> tuple[Path, ...]:
        return () if self.weights in ("imagenet", None) else (Path(str(self.weights)),)

    def problems(self) -> list[str]:
        from kpipe.train.catalog import backbone_names

        problems = super().problems()
        known = backbone_names()
        if self.backbone not in known:
            problems.append(f"backbone={self.backbone!r}: {nearest(str(self.backbone), known)}")
        return problems

    def run(self, context: Context) -> None:
        recipe = Recipe(**self.configuration())
        photos = Photos.read(context, batch_size=self.batch_size)
        train_member(recipe, photos, context.folder, context.journal, recipe.title)


def train_member(
    recipe: Recipe, photos: Photos, folder: Path, journal: Journal, title: str
) -> None:
    """Build one network, train it and leave it in a model folder; taken up where it was cut off.

    Args:
        recipe: what to build, and how to train it.
        photos: what to train on; its seed draws the head, the order and the augmentation.
        folder: where the model, its history and, on the way, its checkpoints go.
        journal: hears of each epoch.
        title: the name of this training.
    """
    from kpipe.train import AtEpoch, FitPlan, OnPlateau, backbone, classifier, unfreeze

    if is_saved(folder):
        return
    begin(photos.seed)
    options = {} if recipe.alpha is None else {"alpha": recipe.alpha}
    base = backbone(
        recipe.backbone, image_size=photos.image_size, weights=recipe.weights, **options
    )
    model = classifier(base, len(photos.classes), dropout=recipe.dropout, seed=photos.seed)
    trained = unfreeze(model, recipe.retrain_last)
    journal.record(
        "note",
        text=f"{title} at {photos.image_size} px: {len(trained)} of "
        f"{sum(bool(layer.weights) for layer in model.layers)} layers with weights train, "
        f"from {trained[0]} on",
    )
    moment: Any = None
    if recipe.switch_to is not None:
        when = recipe.switch_when
        moment = AtEpoch(when) if isinstance(when, int) else OnPlateau()
    plan = FitPlan(
        epochs=recipe.epochs,
        optimizer=recipe.optimizer,
        learning_rate=recipe.learning_rate,
        schedule=recipe.schedule,
        switch_to=recipe.switch_to,
        switch_learning_rate=recipe.switch_learning_rate,
        switch_when=moment,
        class_weight=photos.fit_weight,
    )
    fit_on(model, photos, plan, folder, journal, title)
    save_model(model, folder, title=title, recipe=dataclasses.asdict(recipe))


def fit_on(
    model: keras.Model, photos: Photos, plan: FitPlan, folder: Path, journal: Journal, title: str
) -> None:
    """Train a model on the photos, with checkpoints and `history.json` in a folder."""
    import keras

    from kpipe.train import fit, quicken

    steps = photos.steps
    quicken(model, steps)
    telling = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: journal.progress(
            "step", what=title, done=batch + 1, total=steps
        ),
        on_epoch_end=lambda epoch, logs: journal.record(
            "epoch",
            what=title,
            epoch=epoch + 1,
            epochs=plan.epochs,
            metrics={name: float(logs[name]) for name in _METRICS if name in logs},
        ),
    )
    result = fit(
        model,
        photos.training,
        steps_per_epoch=steps,
        plan=plan,
        validation=photos.finite("validation"),
        folder=folder / "training",
        callbacks=[telling],
    )
    if result.switched_at is not None:
        journal.record(
            "note", text=f"{title}: {plan.switch_to} from epoch {result.switched_at + 1} on"
        )
    journal.record("note", text=f"{title}: kept epoch {result.best_epoch + 1}")
    history = {"title": title, **dataclasses.asdict(result)}
    # Where a training was cut off is no part of its result.
    history.pop("resumed_at")
    (folder / "history.json").write_text(json.dumps([history]), encoding="utf-8")
