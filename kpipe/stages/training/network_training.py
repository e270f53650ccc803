"""One network built and trained by a recipe, alone or as a member of an ensemble.

training at low_res_size := all phases at that size, then a short one at full size
                            (Touvron et al. 2019, arXiv:1906.06423)
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from kpipe.stages.photos.photo_dataset import PhotoDataset
from kpipe.stages.shared.model_folder import is_saved, load_model, reset_keras, save_model
from kpipe.stages.training.phase_planning import plan_full_res_phase, plan_phases
from kpipe.stages.training.reasons import reasons
from kpipe.stages.training.recipe import Recipe
from kpipe.stages.training.training_run import TrainingRun

if TYPE_CHECKING:
    import keras

__all__ = ["build_network", "train_network"]


def train_network(
    recipe: Recipe, photos: PhotoDataset, run: TrainingRun, start: Path | None = None
) -> None:
    """Build a network, train it, and save it in the run's folder; resume if interrupted.

    Args:
        recipe: how to build and train it.
        photos: what to train on; their seed sets the head's initial weights, the order of photos
            and the augmentation.
        run: title, folder and journal of the training run.
        start: the model folder of a trained network to go on from, for `cycle_of(recipe)`; None
            builds a new one.
    """
    from kpipe.keras_copies import copy_state

    if is_saved(run.folder):
        return
    reset_keras(photos.seed)
    if why := reasons(recipe, photos.steps_per_epoch):
        run.note(f": {why}")
    full, low = photos.image_size, recipe.low_res_size
    recipe.refuse_size(full)
    if start is not None:
        model = load_model(start)
        rows = [run.fit_phases(model, photos, plan_phases(recipe, photos, model))]
    elif low is None:
        model = build_network(recipe, full, len(photos.classes), photos.seed)
        rows = [run.fit_phases(model, photos, plan_phases(recipe, photos, model))]
    else:
        low_res = build_network(recipe, low, len(photos.classes), photos.seed)
        shrunk = photos.resized(low)
        low_run, full_run = (
            dataclasses.replace(run, title=f"{run.title} at {size} px") for size in (low, full)
        )
        rows = [low_run.fit_phases(low_res, shrunk, plan_phases(recipe, shrunk, low_res))]
        # Built again, not resized: the padding of some networks depends on the image size.
        model = build_network(recipe, full, len(photos.classes), photos.seed)
        copy_state(low_res, model)
        rows.append(full_run.fit_phases(model, photos, [plan_full_res_phase(recipe, photos)]))
    run.write_history(rows)
    save_model(model, run.folder, title=run.title, recipe=recipe.configuration())


def build_network(recipe: Recipe, size: int, classes: int, seed: int) -> keras.Model:
    """Build a network by a recipe.

    Args:
        recipe: its backbone, alpha, weights and dropout apply.
        size: pixels of a side of the photos.
        classes: number of classes.
        seed: of the head's initial weights.
    """
    from kpipe.train import backbone, classifier

    options = {} if recipe.alpha is None else {"alpha": recipe.alpha}
    base = backbone(recipe.backbone, image_size=size, weights=recipe.weights, **options)
    return classifier(base, classes, dropout=recipe.dropout, seed=seed)
