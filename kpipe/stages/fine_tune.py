"""FineTune: a pretrained network whose last layers learn the user's classes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from kpipe.core.fields import Between
from kpipe.core.stage import Context, Stage, stage
from kpipe.errors import nearest
from kpipe.stages.shared.members import train_member
from kpipe.stages.shared.photos import Photos

__all__ = ["OPTIMIZERS", "SCHEDULES", "FineTune", "Rate"]

OPTIMIZERS = Literal["sgd", "adam", "adamw", "rmsprop", "adadelta"]
SCHEDULES = Literal["constant", "cosine", "exponential", "one-cycle", "plateau", "step"]
Rate = Annotated[float, Between(0, strict=True)]
Share = Annotated[float, Between(0, 1, strict=True)]
Count = Annotated[int, Between(1)]


@stage
class FineTune(Stage):
    """Retrain the last layers of a pretrained network.

    A phase that trains the head alone trains it on features of the frozen backbone, computed once.
    In the phases after it the last layers train too. The weights of the epoch with the lowest
    validation loss are kept.

    Args:
        backbone: a constructor of `keras.applications`, or "EfficientNetLite0".
        alpha: the width of a MobileNet; None for architectures without it.
        weights: "imagenet", a weights file, or None for random ones.
        head_epochs: epochs in which the head trains alone, before all others; None for 10 where
            pretrained layers train after it, else for 0.
        head_learning_rate: the rate in them; None for three times `learning_rate`, since the head
            is new and nothing of it can be lost.
        cached_views: how many epochs' augmentation the features of the frozen backbone are
            computed for; 0 computes them anew in every epoch.
        retrain_last: how many of the backbone's last layers train beside the head, a block that is
            begun included; None for all, 0 for the head alone.
        unfreeze_phases: the number of phases in which these layers are unfrozen, from the top.
        layer_decay: the factor of the learning rate from a block to the one below it.
        dropout: the share of features dropped before the head.
        label_smoothing: the share of each label that goes to all classes evenly.
        optimizer: the first optimizer.
        learning_rate: its rate.
        schedule: of each optimizer's rate, in each phase.
        switch_to: the optimizer to go on with in the last phase, or None.
        switch_when: "plateau" (no lower validation loss for two epochs), "swats" (when Adam's own
            steps suggest it, at the rate that they suggest), or the epoch of the phase.
        switch_learning_rate: the rate after the switch; None keeps the first.
        swats_tolerance: of "swats", in the unit of a learning rate.
        ema_momentum: the momentum of a running average of the weights, which is then what is kept; None
            keeps the weights themselves.
        patience: epochs without a lower validation loss that end a phase; None for never.
        epochs: epochs after those of the head alone.
        low_res_size: pixels of a side at which all this happens, smaller than the photos; None for
            that of the photos. Networks halve an image several times: multiples of 32 fit best.
        full_res_epochs: with `low_res_size`, epochs at full size after that, at a tenth of the
            rate.
        batch_size: photos in a step.
    """

    needs: ClassVar = ("data", "balance?", "augmentation?")
    gives: ClassVar = ("model",)
    publishes: ClassVar = ("model.keras",)
    packages: ClassVar = ("keras", "tensorflow")
    version: ClassVar = 3

    backbone: str
    alpha: Annotated[float, Between(0, 2, strict=True)] | None = None
    weights: str | None = "imagenet"
    head_epochs: Annotated[int, Between(0)] | None = None
    head_learning_rate: Rate | None = None
    cached_views: Annotated[int, Between(0)] = 4
    retrain_last: Annotated[int, Between(0)] | None = 30
    unfreeze_phases: Count = 1
    layer_decay: Annotated[float, Between(0.01, 1)] = 1.0
    dropout: Annotated[float, Between(0, 0.95)] = 0.2
    label_smoothing: Annotated[float, Between(0, 0.95)] = 0.0
    optimizer: OPTIMIZERS = "adam"
    learning_rate: Rate = 1e-3
    schedule: SCHEDULES = "cosine"
    switch_to: OPTIMIZERS | None = None
    switch_when: Count | Literal["plateau", "swats"] = "plateau"
    switch_learning_rate: Rate | None = None
    swats_tolerance: Rate = 1e-5
    ema_momentum: Share | None = None
    patience: Count | None = None
    epochs: Count = 20
    low_res_size: Annotated[int, Between(16)] | None = None
    full_res_epochs: Count = 2
    batch_size: Count = 32

    @property
    def title(self) -> str:
        """The network's name in tables."""
        return self.backbone if self.alpha is None else f"{self.backbone} {self.alpha:g}"

    @property
    def epochs_of_head(self) -> int:
        """Epochs in which the head trains alone before other layers do."""
        if self.head_epochs is not None:
            return self.head_epochs
        return 0 if self.weights is None or self.retrain_last == 0 else 10

    def sources(self) -> tuple[Path, ...]:
        return () if self.weights in ("imagenet", None) else (Path(str(self.weights)),)

    def validation_errors(self) -> list[str]:
        from kpipe.train.backbones.catalog import backbone_names

        problems = super().validation_errors()
        known = backbone_names()
        if self.backbone not in known:
            problems.append(f"backbone={self.backbone!r}: {nearest(str(self.backbone), known)}")
        return problems or self._contradictions()

    def _contradictions(self) -> list[str]:
        """Fields that do not go together, each being right by itself."""
        problems = []
        if self.unfreeze_phases > self.epochs:
            problems.append(
                f"unfreeze_phases={self.unfreeze_phases}: each phase needs one of "
                f"epochs={self.epochs}"
            )
        if self.unfreeze_phases > 1 and self.retrain_last == 0:
            problems.append(
                f"unfreeze_phases={self.unfreeze_phases}: retrain_last=0 unfreezes nothing"
            )
        last_phase = self.epochs - self.epochs // self.unfreeze_phases * (self.unfreeze_phases - 1)
        at_epoch = isinstance(self.switch_when, int) and self.switch_when >= last_phase
        if self.switch_to is not None and at_epoch:
            problems.append(
                f"switch_when={self.switch_when}: the phase that switches has {last_phase} epochs, "
                "the first being 0"
            )
        if self.switch_to is not None and self.switch_when == "swats":
            if self.optimizer not in ("adam", "adamw") or self.switch_to != "sgd":
                problems.append(
                    f'switch_when="swats" leads from "adam" or "adamw" to "sgd", not from '
                    f"{self.optimizer!r} to {self.switch_to!r}"
                )
            if self.switch_learning_rate is not None:
                problems.append(
                    f"switch_learning_rate={self.switch_learning_rate}: "
                    'switch_when="swats" chooses the rate itself'
                )
        return problems

    def run(self, context: Context) -> None:
        photos = Photos.read(context, batch_size=self.batch_size)
        train_member(self, photos, context.folder, context.journal, self.title)
