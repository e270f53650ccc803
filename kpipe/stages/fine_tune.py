"""FineTune: train a pretrained network on the user's classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from kpipe.core.stage import Context, Stage, stage
from kpipe.stages.data import Data
from kpipe.stages.photos.photo_dataset import PhotoDataset
from kpipe.stages.shared.declared import newest, refusals
from kpipe.stages.training.network_training import build_network, train_network
from kpipe.stages.training.phase_planning import unfrozen_layers
from kpipe.stages.training.recipe import Recipe
from kpipe.stages.training.training_run import TrainingRun

__all__ = ["FineTune"]


@stage
class FineTune(Recipe):
    """Fine-tune a pretrained network.

    The head first trains alone, on features of the frozen backbone that are computed once. Then
    all layers train with it, or the last ones. The weights of the epoch with the lowest validation
    loss are kept.

    Args:
        backbone: a constructor of `keras.applications`; "EfficientNetLite0", "EfficientNetLite1"
            or "EfficientNetLite2"; or "hub:" and a convolutional preset of KerasHub or its folder.
        alpha: width multiplier of a MobileNet; None for architectures without one.
        weights: "imagenet", a weights file, or None for random initialization.
        head_epochs: epochs in which the head trains alone, before all others; None for 10 if
            pretrained layers train afterwards, else 0.
        head_learning_rate: learning rate in these epochs; None for three times that of later
            ones, since a new head has nothing to forget.
        cached_views: number of epochs' augmentations for which features of the frozen backbone
            are cached; 0 computes the features anew in every epoch.
        cached_phases: "head" to compute features for the head alone, or "all" to train the last
            layers, too, on features of the layers below them. Epochs are then several times
            shorter, and see as many augmentations as there are views.
        retrain_last: number of last backbone layers to train with the head, rounded up to whole
            blocks; None for all, 0 for the head alone.
        unfreeze_phases: number of phases in which these layers are unfrozen, from the top down.
        layer_decay: factor of the learning rate from one block to the block below it.
        backbone_factor: factor of the learning rate of all pretrained layers.
        freeze_norm: whether BatchNormalization layers keep the statistics and scales of the
            pretraining; None for yes if there was one. Statistics of the few photos of a user
            are worse: see docs/evidence.md.
        dropout: fraction of the features to drop before the head.
        label_smoothing: fraction of each label to spread evenly over all classes.
        optimizer: the first optimizer. "swats" is Adam that goes over to SGD for each weight on its
            own, see `kpipe.train.LayerwiseSWATS`.
        learning_rate: its learning rate; None for 3e-4 if pretrained layers train, else 1e-3. Adam
            at 1e-3 destroys pretrained layers.
        schedule: learning rate schedule of each optimizer, in each phase.
        warmup: fraction of a phase in which the learning rate of "cosine" rises to its peak.
        weight_decay: decoupled weight decay; None for the optimizer's default.
        clip_norm: largest norm of all gradients together; None for no limit.
        switch_to: optimizer for the rest of the last phase, or None.
        switch_when: "plateau" (no lower validation loss for two epochs), "swats" (when Adam's
            steps suggest it, at the learning rate that they suggest), or an epoch of the phase.
        switch_learning_rate: learning rate after the switch; None keeps the first.
        swats_tolerance: convergence tolerance of `switch_when="swats"` and `optimizer="swats"`, in
            units of the learning rate.
        ema_momentum: momentum of a moving average of the weights, which replaces them in the
            result; None for no average.
        patience: epochs without a lower validation loss after which a phase ends; None for never.
        epochs: epochs after those of the head alone; or (epochs, steps): few photos train for as
            many epochs as make up the training steps, up to four times `epochs`.
        low_res_size: train on images of this many pixels a side, fewer than the photos have; None
            trains at full size. Networks halve an image several times: multiples of 32 fit best.
        full_res_epochs: with `low_res_size`, the number of epochs at full size that follow, at a
            tenth of the learning rate.
        batch_size: photos in a training step.
        effort: "quick" trains for 6 epochs by default, "standard" for 20, "best" for 60; with fewer
            than about 1,000 training photos, for more. Fields that are declared keep their values.

    Example:
        >>> from kpipe.stages import FineTune
        >>> stage = FineTune("MobileNetV2", alpha=0.35, retrain_last=60, epochs=20)
        >>> stage.title, stage.effective_head_epochs
        ('MobileNetV2 0.35', 10)
        >>> FineTune("MobileNetV5").validation_errors()
        ["backbone='MobileNetV5': did you mean 'MobileNetV2'?"]
    """

    needs: ClassVar = ("data", "balance?", "augmentation?")
    gives: ClassVar = ("model",)
    publishes: ClassVar = ("model.keras",)
    packages: ClassVar = ("keras", "tensorflow")
    # 4: frozen normalizations are folded, which rounds differently
    version: ClassVar = 4

    @property
    def title(self) -> str:
        """The name of the network in tables; of a preset in a folder, the folder's name."""
        from kpipe.train.backbones.hub_catalog import is_hub, preset_folder

        preset = preset_folder(self.backbone) if is_hub(self.backbone) else None
        name = self.backbone if preset is None else f"hub:{preset.name}"
        return name if self.alpha is None else f"{name} {self.alpha:g}"

    def sources(self) -> tuple[Path, ...]:
        from kpipe.train.backbones.hub_catalog import is_hub, preset_folder

        files = () if self.weights in ("imagenet", None) else (Path(str(self.weights)),)
        preset = preset_folder(self.backbone) if is_hub(self.backbone) else None
        return files if preset is None else (*files, preset)

    def conflicts(self, earlier: Sequence[Stage]) -> list[str]:
        data = newest(earlier, Data)
        return refusals(self.refuse_size, data.image_size) if data else []

    def check_surroundings(self, earlier: Sequence[Stage]) -> list[str]:
        from kpipe.train.backbones.hub_catalog import is_hub
        from kpipe.train.backbones.weights_files import find_imagenet_file

        data = newest(earlier, Data)
        if self.weights != "imagenet" or data is None:
            return []
        found = [
            find_imagenet_file(self.backbone, size, size, self.alpha)
            for size in sorted({self.low_res_size or data.image_size, data.image_size})
        ]
        missing = {file for file in found if isinstance(file, str)}
        if is_hub(self.backbone):
            preset = self.backbone.removeprefix("hub:")
            return [f"the preset {preset}, which KerasHub downloads"] if missing else []
        return [f"the ImageNet weights {file}, which Keras downloads" for file in sorted(missing)]

    def rehearse(self, earlier: Sequence[Stage]) -> None:
        data = newest(earlier, Data)
        if data is None:
            return
        from kpipe.train import split_frozen, unfreeze

        for size in sorted({self.low_res_size or data.image_size, data.image_size}):
            # The classes are not known yet, and nothing but the head depends on them.
            model = build_network(self, size, classes=2, seed=0)
            for last in unfrozen_layers(self, model):
                unfreeze(model, last)
                if self.cached_phases == "all":
                    split_frozen(model)

    def run(self, context: Context) -> None:
        photos = PhotoDataset.read(context, batch_size=self.batch_size)
        train_network(self, photos, TrainingRun(self.title, context.folder, context.journal))
