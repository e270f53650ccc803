"""Training a network again that has lost filters or weights.

loss := of the labels, and of what the network as it was says (`kpipe.train.Distiller`)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from kpipe.core.fields import Between
from kpipe.stages.shared.members import fit_on
from kpipe.stages.shared.photos import Photos

if TYPE_CHECKING:
    import keras

    from kpipe.core.journal import Journal
    from kpipe.train import TrainingConfig

__all__ = ["Weight", "retrain", "sample", "unfreeze_but_normalization"]

_SAMPLE_STEPS = 20

Weight = Annotated[float, Between(0)]


def retrain(
    model: keras.Model,
    teacher: keras.Model,
    photos: Photos,
    plan: TrainingConfig,
    folder: Path,
    journal: Journal,
    title: str,
    *,
    soft_target_weight: float,
    feature_weight: float,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Train a model as `fit_on` does, with a teacher where its answers or features count."""
    from kpipe.train import Distiller

    learner = model
    if soft_target_weight or feature_weight:
        learner = Distiller(
            model,
            teacher,
            sample(photos),
            soft_target_weight=soft_target_weight,
            feature_weight=feature_weight,
        )
    folder.mkdir(exist_ok=True)
    fit_on(learner, photos, plan, folder, journal, title, callbacks)


def sample(photos: Photos) -> Any:
    """Training photos in the order of training, some of every class."""
    return photos.training(0).take(min(photos.steps, _SAMPLE_STEPS))


def unfreeze_but_normalization(model: keras.Model) -> None:
    """All layers train, but normalizations that were frozen stay so.

    Their statistics are of the many photos that the network was pretrained on. In training, those
    of a batch would take their place at once: that cost an unpruned EfficientNetLite0 12 points.
    """
    import keras

    from kpipe.keras_internals import layers_within
    from kpipe.train import unfreeze

    frozen = [
        layer
        for layer in layers_within(model)
        if isinstance(layer, keras.layers.BatchNormalization) and not layer.trainable
    ]
    unfreeze(model)
    for layer in frozen:
        layer.trainable = False
