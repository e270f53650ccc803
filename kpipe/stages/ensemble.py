"""Ensemble: several networks with different errors, combined in one graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from kpipe.core.fields import Between
from kpipe.core.stage import Context, Stage, stage
from kpipe.stages.fine_tune import FineTune
from kpipe.stages.shared.declared import newest
from kpipe.stages.shared.model_folder import (
    is_saved,
    join_histories,
    load_model,
    read_metadata,
    reset_keras,
    save_model,
)
from kpipe.stages.shared.network_training import train_network
from kpipe.stages.shared.photo_dataset import PhotoDataset
from kpipe.stages.shared.training_run import TrainingRun

__all__ = ["Ensemble"]


@stage
class Ensemble(Stage):
    """Combine the fine-tuned network with others, trained by the same recipe.

    Each further member has another seed (initial head, order of photos, augmentation) and another
    augmentation strength, from 0.5 to 1.5 times the declared one.

    Args:
        members: number of networks, the fine-tuned one included.
        combine: "average" of the probabilities, or majority "vote".

    Example:
        >>> from kpipe.stages import Ensemble
        >>> Ensemble(members=2)
        Ensemble(members=2, combine='average')
    """

    needs: ClassVar = ("data", "model", "balance?", "augmentation?")
    gives: ClassVar = ("ensemble",)
    packages: ClassVar = ("keras", "tensorflow")

    members: Annotated[int, Between(2, 20)] = 3
    combine: Literal["average", "vote"] = "average"

    def check_surroundings(self, earlier: Sequence[Stage]) -> list[str]:
        recipe = newest(earlier, FineTune)
        return recipe.check_surroundings(earlier) if recipe else []

    def run(self, context: Context) -> None:
        from kpipe.ensemble import average, vote
        from kpipe.prune import count_macs

        if is_saved(context.folder):
            return
        first = context.newest("model")
        recipe = FineTune(**read_metadata(first)["recipe"])
        photos = PhotoDataset.read(context, batch_size=recipe.batch_size)
        folders = [first]
        for number in range(2, self.members + 1):
            folder = context.folder / f"member-{number}"
            folder.mkdir(exist_ok=True)
            # Evenly spaced strengths in [0.5, 1.5]; the first member has 1.
            strength = 0.5 + (number - 1.5) / (self.members - 1)
            run = TrainingRun(f"member {number} of {self.members}", folder, context.journal)
            train_network(recipe, photos.reseeded(context.seed + 1000 * number, strength), run)
            folders.append(folder)
        reset_keras(context.seed)
        models = [load_model(folder) for folder in folders]
        combined = average(models) if self.combine == "average" else vote(models)
        join_histories(context.folder, folders[1:])
        save_model(
            combined,
            context.folder,
            title=f"ensemble of {self.members} ({self.combine})",
            macs=sum(map(count_macs, models)),
        )
