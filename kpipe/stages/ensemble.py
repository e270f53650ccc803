"""Ensemble: several networks that err differently, combined in one graph."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from kpipe.core.fields import Between
from kpipe.core.stage import Context, Stage, stage
from kpipe.stages.fine_tune import FineTune
from kpipe.stages.shared.members import train_member
from kpipe.stages.shared.model_folder import (
    begin,
    is_saved,
    join_histories,
    load_model,
    read_about,
    save_model,
)
from kpipe.stages.shared.photos import Photos

__all__ = ["Ensemble"]


@stage
class Ensemble(Stage):
    """The fine-tuned network and further ones, trained alike but drawn otherwise.

    Each further member has its own seed (initial head, order of photos, augmentation draws) and its
    own strength of augmentation, from half to one and a half times the declared one.

    Args:
        members: how many, the fine-tuned network included.
        combine: "average" of the probabilities, or majority "vote".
    """

    needs: ClassVar = ("data", "model", "balance?", "augmentation?")
    gives: ClassVar = ("ensemble",)
    packages: ClassVar = ("keras", "tensorflow")

    members: Annotated[int, Between(2, 20)] = 3
    combine: Literal["average", "vote"] = "average"

    def run(self, context: Context) -> None:
        from kpipe.ensemble import average, vote
        from kpipe.prune import count_macs

        if is_saved(context.folder):
            return
        first = context.newest("model")
        recipe = FineTune(**read_about(first)["recipe"])
        photos = Photos.read(context, batch_size=recipe.batch_size)
        folders = [first]
        for number in range(2, self.members + 1):
            folder = context.folder / f"member-{number}"
            folder.mkdir(exist_ok=True)
            # The strengths spread evenly over 0.5 to 1.5, the first member's being 1.
            strength = 0.5 + (number - 1.5) / (self.members - 1)
            varied = photos.varied(context.seed + 1000 * number, strength)
            title = f"member {number} of {self.members}"
            train_member(recipe, varied, folder, context.journal, title)
            folders.append(folder)
        begin(context.seed)
        models = [load_model(folder) for folder in folders]
        combined = average(models) if self.combine == "average" else vote(models)
        join_histories(context.folder, folders[1:])
        save_model(
            combined,
            context.folder,
            title=f"ensemble of {self.members} ({self.combine})",
            macs=sum(map(count_macs, models)),
        )
