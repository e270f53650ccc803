"""What a recipe leaves open, what follows for these photos, and why."""

from __future__ import annotations

from kpipe.stages.training.efforts import epochs_of, least_epochs
from kpipe.stages.training.recipe import Recipe

__all__ = ["reasons"]


def reasons(recipe: Recipe, steps_per_epoch: int) -> str:
    """Return a line that names each value that the declaration left open; "" if it left none.

    Args:
        recipe: as declared.
        steps_per_epoch: training steps that show all photos once.

    Example:
        >>> from kpipe.stages import FineTune
        >>> from kpipe.stages.training.reasons import reasons
        >>> declared = FineTune("MobileNet", learning_rate=1e-4, freeze_norm=True, head_epochs=0)
        >>> reasons(declared, steps_per_epoch=8)
        '80 epochs of 8 steps, because few photos need more'
    """
    found, pretrained = [], recipe.weights is not None
    if not isinstance(recipe.epochs, int):
        epochs = epochs_of(recipe.epochs, steps_per_epoch)
        few = epochs > least_epochs(recipe.epochs)
        why = ", because few photos need more" if few else ""
        found.append(f"{epochs} epochs of {steps_per_epoch} steps{why}")
    if recipe.learning_rate is None:
        tuned = pretrained and recipe.retrain_last != 0
        why = "pretrained layers train" if tuned else "only new layers train"
        found.append(f"learning rate {recipe.effective_learning_rate:g}, because {why}")
    if recipe.head_epochs is None and recipe.effective_head_epochs:
        found.append(f"{recipe.effective_head_epochs} epochs of the head before, because it is new")
    if recipe.freeze_norm is None and recipe.keeps_norm and recipe.retrain_last != 0:
        found.append("normalization as pretrained, because statistics of few photos are worse")
    return "; ".join(found)
