"""Snapshots: members of an ensemble that one cyclic training passes through.

member 1 := the recipe;  member n := member n-1, trained along one more cosine
                                      (Huang et al. 2017, arXiv 1704.00109)
soup     := their mean weights (Izmailov et al. 2018, arXiv 1803.05407), chosen on validation
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from kpipe.stages.photos.photo_dataset import PhotoDataset
from kpipe.stages.training.efforts import epochs_of
from kpipe.stages.training.ensemble_choice import predict
from kpipe.stages.training.member_training import Member
from kpipe.stages.training.recipe import Recipe

if TYPE_CHECKING:
    import keras

    from kpipe.ensemble import Assessment

__all__ = ["cycle_of", "mix"]

AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def cycle_of(recipe: AnyRecipe, epochs: int | None, photos: PhotoDataset) -> AnyRecipe:
    """Return the recipe of one further cycle of a trained network.

    Args:
        recipe: that of the network.
        epochs: as declared; None for a quarter of the recipe's, rounded up.
        photos: their number decides how many epochs the recipe has.
    """
    if epochs is None:
        steps = dataclasses.replace(photos, batch_size=recipe.batch_size).steps_per_epoch
        epochs = -(-epochs_of(recipe.epochs, steps) // 4)
    return dataclasses.replace(
        recipe,
        epochs=epochs,
        head_epochs=0,
        unfreeze_phases=1,
        low_res_size=None,
        switch_to=None,
        switch_when="plateau",
        switch_learning_rate=None,
    )


def mix(
    member: Member, models: Sequence[keras.Model], assessment: Assessment
) -> tuple[Assessment, keras.Model]:
    """Return an assessment that includes the greedy soup of the members, and the soup.

    Args:
        member: one of them; its validation photos choose, and its training photos measure the
            statistics of normalizations that were trained.
        models: of the members.
        assessment: of their predictions.
    """
    from kpipe.ensemble import Score, assess, greedy_soup
    from kpipe.train import update_bn

    photos = member.photos
    labels = photos.manifest.labels("validation")
    known = {id(model): score for model, score in zip(models, assessment.members, strict=True)}

    def score_of(model: keras.Model) -> Score:
        return known.get(id(model)) or assess([predict(member, model)], labels).members[0]

    def finish(model: keras.Model) -> None:
        update_bn(model, photos.training_data().batches(0).take(photos.steps_per_epoch))

    mixed, weights = greedy_soup(models, lambda model: score_of(model).loss, finish=finish)
    score = dataclasses.replace(score_of(mixed), name="soup", weights=tuple(map(float, weights)))
    combinations = {**assessment.combinations, "soup": score}
    return dataclasses.replace(assessment, combinations=combinations), mixed
