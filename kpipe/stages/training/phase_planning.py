"""The phases of training that a recipe declares.

phases := [the head alone, on cached features], then the last layers, unfrozen in one phase or more,
          on photos or on cached features of the layers below them
"""

from __future__ import annotations

import dataclasses
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from kpipe.core.fingerprint import fingerprint
from kpipe.stages.photos.photo_dataset import PhotoDataset
from kpipe.stages.training.efforts import epochs_of
from kpipe.stages.training.recipe import Recipe

if TYPE_CHECKING:
    import keras

    from kpipe.train import FeatureConfig, Phase, SwitchTrigger, TrainingConfig

__all__ = ["plan_full_res_phase", "plan_phases", "unfrozen_layers"]


def plan_phases(recipe: Recipe, photos: PhotoDataset, model: keras.Model) -> list[Phase]:
    """Return the phases of a network's training."""
    from kpipe.train import Phase

    features = _plan_features(recipe, photos, model) if recipe.cached_views else None
    phases = []
    if recipe.effective_head_epochs:
        learning_rate = recipe.head_learning_rate or 3 * recipe.effective_learning_rate
        config = _training_config(recipe, photos, recipe.effective_head_epochs, learning_rate)
        phases.append(Phase(config, 0, features))
        # Later phases see later epochs of the data, whose features differ from the cached ones.
        features = _own(features) if features else None
    below = _own(features) if features and recipe.cached_phases == "all" else None
    count, whole = recipe.unfreeze_phases, epochs_of(recipe.epochs, photos.steps_per_epoch)
    for number, last in enumerate(unfrozen_layers(recipe, model), 1):
        is_last = number == count
        # The last phase trains the most layers and gets the epochs that do not divide evenly.
        epochs = whole // count + (whole % count if is_last else 0)
        config = _training_config(recipe, photos, epochs, switches=is_last)
        phases.append(_phase(recipe, config, last, features if last == 0 else below))
    return phases


def unfrozen_layers(recipe: Recipe, model: keras.Model) -> tuple[int | None, ...]:
    """Return how many last layers of a network train in each phase after that of the head alone.

    Raises:
        TrainingError: the network has too few blocks of layers for the phases.
    """
    from kpipe.train import plan_unfreezing

    last = recipe.retrain_last
    if recipe.unfreeze_phases == 1:
        return (last,)
    return plan_unfreezing(model, recipe.unfreeze_phases + 1, last)[1:]


def plan_full_res_phase(recipe: Recipe, photos: PhotoDataset) -> Phase:
    """Return the phase at full size after training at a lower resolution."""
    config = _training_config(
        recipe, photos, recipe.full_res_epochs, 0.1 * recipe.effective_learning_rate
    )
    return _phase(recipe, config, recipe.retrain_last)


def _phase(
    recipe: Recipe, config: TrainingConfig, last: int | None, features: FeatureConfig | None = None
) -> Phase:
    from kpipe.train import Phase

    return Phase(
        config, last, features, recipe.keeps_norm, recipe.layer_decay, recipe.backbone_factor
    )


def _own(features: FeatureConfig) -> FeatureConfig:
    """Return the same, of the photos of the training run itself and shared with no other."""
    return dataclasses.replace(features, folder=None, source=None, rows=None)


def _plan_features(recipe: Recipe, photos: PhotoDataset, model: keras.Model) -> FeatureConfig:
    """Plan which features of the frozen backbone to compute, and where all runs share them."""
    from kpipe.train import (
        FeatureConfig,
        remove_unused_features,
        split_frozen,
        unfreeze,
        weights_digest,
    )

    source = photos.feature_source
    seen = source or photos
    views = recipe.cached_views if seen.augmenter or seen.mixer or seen.sampling else 1
    config = FeatureConfig(
        views,
        photos.seed,
        source=source.training_data() if source else None,
        rows=photos.feature_rows(views),
    )
    if photos.shared_folder is None:
        return config
    unfreeze(model, 0)
    stem, _ = split_frozen(model)
    key = fingerprint(
        {
            "photos": seen.identity,
            "backbone": [recipe.backbone, recipe.alpha, weights_digest(stem)],
            "views": config.views,
            "version": recipe.version,
            "distributions": {name: version(name) for name in recipe.packages},
        }
    )
    remove_unused_features(photos.shared_folder / "features")
    return dataclasses.replace(config, folder=photos.shared_folder / "features" / key)


def _training_config(
    recipe: Recipe,
    photos: PhotoDataset,
    epochs: int,
    learning_rate: float | None = None,
    switches: bool = False,
) -> TrainingConfig:
    from kpipe.train import CosineDecay, LayerwiseSWATS, TrainingConfig

    schedule = CosineDecay(recipe.warmup) if recipe.schedule == "cosine" else recipe.schedule
    switches = switches and recipe.switch_to is not None
    optimizer: Any = recipe.optimizer
    if optimizer == "swats":
        optimizer = LayerwiseSWATS(tolerance=recipe.swats_tolerance)
    return TrainingConfig(
        epochs=epochs,
        optimizer=optimizer,
        learning_rate=learning_rate or recipe.effective_learning_rate,
        schedule=schedule,
        switch_to=recipe.switch_to if switches else None,
        switch_learning_rate=recipe.switch_learning_rate if switches else None,
        switch_when=_switch_trigger(recipe) if switches else None,
        class_weight=photos.fit_class_weight,
        label_smoothing=recipe.label_smoothing,
        ema_momentum=recipe.ema_momentum,
        patience=recipe.patience,
        weight_decay=recipe.weight_decay,
        clip_norm=recipe.clip_norm,
    )


def _switch_trigger(recipe: Recipe) -> SwitchTrigger:
    from kpipe.train import SWATS, AtEpoch, OnPlateau

    if recipe.switch_when == "plateau":
        return OnPlateau()
    if recipe.switch_when == "swats":
        return SWATS(recipe.swats_tolerance)
    return AtEpoch(recipe.switch_when)
