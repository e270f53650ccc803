"""A recipe: how one network is built and trained.

`FineTune` declares it, and `Ensemble` repeats it with other seeds.
"""

from __future__ import annotations

import importlib.util
from typing import Annotated, ClassVar, Literal

from kpipe.core.fields import Between
from kpipe.core.stage import Stage, stage
from kpipe.errors import TrainingError, WeightsError
from kpipe.stages.shared.declared import refusals
from kpipe.stages.shared.field_types import (
    LearningRate,
    LossWeight,
    NonNegativeInt,
    OpenUnitInterval,
    Optimizer,
    PositiveInt,
    Schedule,
)
from kpipe.stages.training.efforts import EFFORTS, Effort, least_epochs

__all__ = ["Recipe"]


@stage
class Recipe(Stage):
    """The fields of `kpipe.stages.FineTune`, which describes them."""

    preset_by: ClassVar = "effort"
    presets: ClassVar = EFFORTS

    backbone: str
    alpha: Annotated[float, Between(0, 2, strict=True)] | None = None
    weights: str | None = "imagenet"
    head_epochs: NonNegativeInt | None = None
    head_learning_rate: LearningRate | None = None
    cached_views: NonNegativeInt = 4
    cached_phases: Literal["head", "all"] = "head"
    retrain_last: NonNegativeInt | None = None
    unfreeze_phases: PositiveInt = 1
    layer_decay: Annotated[float, Between(0.01, 1)] = 1.0
    backbone_factor: Annotated[float, Between(0.001, 1)] = 1.0
    freeze_norm: bool | None = None
    dropout: Annotated[float, Between(0, 0.95)] = 0.2
    label_smoothing: Annotated[float, Between(0, 0.95)] = 0.0
    optimizer: Optimizer = "adam"
    learning_rate: LearningRate | None = None
    schedule: Schedule = "cosine"
    warmup: Annotated[float, Between(0, 0.9)] = 0.0
    weight_decay: LossWeight | None = None
    clip_norm: LearningRate | None = None
    switch_to: Optimizer | None = None
    switch_when: PositiveInt | Literal["plateau", "swats"] = "plateau"
    switch_learning_rate: LearningRate | None = None
    swats_tolerance: LearningRate = 1e-5
    ema_momentum: OpenUnitInterval | None = None
    patience: PositiveInt | None = None
    epochs: PositiveInt | tuple[PositiveInt, PositiveInt] = (20, 640)
    low_res_size: Annotated[int, Between(16)] | None = None
    full_res_epochs: PositiveInt = 2
    batch_size: PositiveInt = 32
    effort: Effort = "standard"

    def __post_init__(self) -> None:
        if isinstance(self.epochs, list):  # as read from JSON
            object.__setattr__(self, "epochs", tuple(self.epochs))

    def distributions(self) -> tuple[str, ...]:
        from kpipe.train.backbones.hub_catalog import is_hub

        # KerasHub knows which version of its weights a preset means.
        if is_hub(self.backbone) and importlib.util.find_spec("keras_hub"):
            return (*self.packages, "keras-hub")
        return self.packages

    @property
    def effective_head_epochs(self) -> int:
        """Epochs in which the head trains alone before other layers do."""
        if self.head_epochs is not None:
            return self.head_epochs
        return 0 if self.weights is None or self.retrain_last == 0 else 10

    @property
    def effective_learning_rate(self) -> float:
        """Learning rate of the first optimizer, in the phases after that of the head alone."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 1e-3 if self.weights is None or self.retrain_last == 0 else 3e-4

    @property
    def keeps_norm(self) -> bool:
        """Whether BatchNormalization layers keep the statistics of the pretraining."""
        return self.weights is not None if self.freeze_norm is None else self.freeze_norm

    def validation_errors(self) -> list[str]:
        from kpipe.train.backbones.catalog import refuse_name

        errors = super().validation_errors()
        try:
            refuse_name(str(self.backbone))
        except WeightsError as error:
            errors.append(f"backbone={self.backbone!r}: {error.fix}")
        return errors or [
            *self._network_conflicts(),
            *self._phase_conflicts(),
            *self._switch_conflicts(),
        ]

    def refuse_size(self, image_size: int) -> None:
        """Refuse photos of a size that the network cannot be trained on.

        Args:
            image_size: pixels of a side.

        Raises:
            WeightsError: they are too small for the backbone.
            TrainingError: they are no larger than `low_res_size`.
        """
        from kpipe.train.backbones.catalog import refuse_size

        refuse_size(self.backbone, image_size, image_size)
        if self.low_res_size is not None and self.low_res_size >= image_size:
            raise TrainingError(
                f"low_res_size={self.low_res_size} is not smaller than the photos",
                expected=f"less than {image_size} pixels",
                fix="leave low_res_size out, or raise Data.image_size",
            )

    def _network_conflicts(self) -> list[str]:
        from kpipe.train.backbones.catalog import refuse_size, refuse_weights_name, refuse_width

        errors = []
        if self.alpha is not None:
            errors += refusals(refuse_width, self.backbone, self.alpha, self.weights)
        if self.weights is not None:
            errors += refusals(refuse_weights_name, self.weights)
        if self.low_res_size is not None:
            size = self.low_res_size
            found = refusals(refuse_size, self.backbone, size, size)
            errors += [f"low_res_size={size}: {error}" for error in found]
        if self.weights is None and self.retrain_last:
            errors.append(
                f"retrain_last={self.retrain_last} with weights=None freezes random weights below; "
                "write retrain_last=None"
            )
        if self.freeze_norm and self.weights is None:
            errors.append("freeze_norm=True keeps pretrained statistics, and weights=None has none")
        return errors

    def _phase_conflicts(self) -> list[str]:
        phases, errors = f"unfreeze_phases={self.unfreeze_phases}", []
        if self.unfreeze_phases > least_epochs(self.epochs):
            errors.append(f"{phases}: each phase needs one of epochs={self.epochs}")
        if self.unfreeze_phases > 1 and self.retrain_last == 0:
            errors.append(f"{phases}: retrain_last=0 unfreezes nothing")
        if self.cached_phases == "all" and (self.retrain_last is None or not self.cached_views):
            errors.append(
                f'cached_phases="all" needs frozen layers and their features, not retrain_last='
                f"{self.retrain_last}, cached_views={self.cached_views}"
            )
        if self.warmup and self.schedule != "cosine":
            errors.append(f'warmup={self.warmup} needs schedule="cosine", not {self.schedule!r}')
        return errors

    def _switch_conflicts(self) -> list[str]:
        if self.switch_to is None:
            return []
        if "swats" in (self.optimizer, self.switch_to):
            return [
                f"optimizer={self.optimizer!r} with switch_to={self.switch_to!r}: "
                'optimizer="swats" switches by itself, with switch_to=None'
            ]
        errors = []
        epochs, count = least_epochs(self.epochs), self.unfreeze_phases
        last_phase = epochs - epochs // count * (count - 1)
        if isinstance(self.switch_when, int) and self.switch_when >= last_phase:
            errors.append(
                f"switch_when={self.switch_when}: the phase that switches has {last_phase} epochs, "
                "counted from 0"
            )
        if self.switch_when == "swats":
            if self.optimizer not in ("adam", "adamw") or self.switch_to != "sgd":
                errors.append(
                    'switch_when="swats" switches from "adam" or "adamw" to "sgd", not from '
                    f"{self.optimizer!r} to {self.switch_to!r}"
                )
            if self.switch_learning_rate is not None:
                errors.append(
                    f"switch_learning_rate={self.switch_learning_rate}: "
                    'switch_when="swats" chooses the learning rate itself'
                )
        return errors
