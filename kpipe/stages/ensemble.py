"""Ensemble: several networks with different errors, combined in one graph.

ensemble folder := model.keras, model.json, history.json   the combination
                   member-1/, member-2/, ...               those that this stage trained
                   model/                                  with a list: the best member;
                                                           with "soup": the soup
                   ensemble.json                           see `ensemble_choice`
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from kpipe.atomic import write_text
from kpipe.core.fields import Between
from kpipe.core.stage import Context, Stage, stage
from kpipe.errors import TrainingError
from kpipe.stages.augment import Augment
from kpipe.stages.balance import Balance
from kpipe.stages.fine_tune import FineTune
from kpipe.stages.photos.photo_dataset import PhotoDataset
from kpipe.stages.shared.declared import newest
from kpipe.stages.shared.field_types import PositiveInt
from kpipe.stages.shared.model_folder import (
    is_saved,
    join_histories,
    load_model,
    read_metadata,
    reset_keras,
    save_model,
)
from kpipe.stages.training.ensemble_choice import Choice, predict
from kpipe.stages.training.member_training import Member, error_of, refuse_too_few, train_members
from kpipe.stages.training.snapshots import cycle_of, mix

__all__ = ["Ensemble"]

_Variation = Literal["seed", "augmentation", "resample", "snapshot"]
_MOST = 20


@stage
class Ensemble(Stage):
    """Train several networks and combine them in one graph.

    With a number of members, the first is the network of the `FineTune` before it, and the others
    repeat its recipe, or go on from it. With a list, each `FineTune` in it is a member; unless a
    `FineTune` comes before it, later stages go on with the member that is best on validation.

    Members train on the features of a frozen backbone that were computed once, if their backbones
    are equal: those of the first member's augmentation.

    If the combination is no better on validation than the best member, a note says so, and the
    ensemble is that member alone. "vote" is compared by accuracy, the others by cross-entropy.

    Args:
        members: the number of networks, the fine-tuned one included; or a list of `FineTune`s.
        combine: "average" or "geometric" mean of the probabilities; "weighted" average, with the
            weights that have the lowest cross-entropy on validation; "greedy" selection of members
            on validation, with replacement; or majority "vote", in which the higher mean
            probability decides between classes with as many votes. "soup" averages the weights of
            the snapshots that lower the cross-entropy on validation: one network, as small as a
            member, with which later stages go on.
        vary: what distinguishes the members from the first: "seed" (initial head, order of photos,
            draws of the augmentation), "augmentation" (its strength, from 0.5 to 1.5 times the
            declared one), "resample" (a bootstrap sample of the training photos), or several of
            them. "snapshot": each member goes on from the one before it, with its first optimizer
            and learning rate, along another cosine. None for "seed" and "augmentation"; for "seed"
            with a list; for "snapshot" with "soup".
        cycle_epochs: epochs of each snapshot; None for a quarter of those of the recipe.
        on_failure: "stop" at a member that fails, or "go_on" without it, if two are left. The
            members that were trained are kept either way.

    Example:
        >>> from kpipe.stages import Ensemble, FineTune
        >>> Ensemble(members=2)
        Ensemble(members=2, combine='average', vary=None, cycle_epochs=None, on_failure='stop')
        >>> different = Ensemble([FineTune("MobileNetV2", alpha=0.5), FineTune("MobileNet")])
        >>> [member.title for member in different.members]
        ['MobileNetV2 0.5', 'MobileNet']
    """

    # 2: members share the features of a frozen backbone; the best member where it is better
    # 3: frozen normalizations are folded, which rounds differently
    version: ClassVar = 3
    needs: ClassVar = ("data", "model", "balance?", "augmentation?")
    gives: ClassVar = ("ensemble", "model?")
    packages: ClassVar = ("keras", "tensorflow", "scipy")
    # A run that stopped at a member goes on with "go_on", and keeps the members that it has.
    judged: ClassVar = ("on_failure",)

    members: Annotated[int, Between(2, _MOST)] | tuple[FineTune, ...] = 3
    combine: Literal["average", "geometric", "weighted", "greedy", "vote", "soup"] = "average"
    vary: _Variation | tuple[_Variation, ...] | None = None
    cycle_epochs: PositiveInt | None = None
    on_failure: Literal["stop", "go_on"] = "stop"

    def __post_init__(self) -> None:
        for name in ("members", "vary"):
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, tuple(value))

    @property
    def effective_needs(self) -> tuple[str, ...]:
        listed = isinstance(self.members, tuple)
        return tuple(need for need in self.needs if not (listed and need == "model"))

    @property
    def effective_gives(self) -> tuple[str, ...]:
        return ("ensemble", "model") if self.combine == "soup" else self.gives

    @property
    def effective_vary(self) -> tuple[str, ...]:
        """What distinguishes the members from the first."""
        if self.vary is None and self.combine == "soup":
            return ("snapshot",)
        if self.vary is None:
            return ("seed",) if isinstance(self.members, tuple) else ("seed", "augmentation")
        return (self.vary,) if isinstance(self.vary, str) else self.vary

    def sources(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(path for one in self._listed() for path in one.sources()))

    def validation_errors(self) -> list[str]:
        if isinstance(self.members, tuple):
            kinds = [
                f"members[{index}] is {one!r:.60}, not a FineTune(...)"
                for index, one in enumerate(self.members)
                if not isinstance(one, FineTune)
            ]
            if kinds:
                return kinds
        return super().validation_errors() or [
            *self._equal_members(),
            *self._invalid_members(),
            *self._snapshot_conflicts(),
        ]

    def conflicts(self, earlier: Sequence[Stage]) -> list[str]:
        errors = [
            f"members[{index}]: {error}"
            for index, one in enumerate(self._listed())
            for error in one.conflicts(earlier)
        ]
        makers = [one for one in earlier if "model" in one.gives]
        if not self._listed() and makers and not isinstance(makers[-1], FineTune):
            errors.append(
                f"members={self.members} repeats the FineTune before it, and {makers[-1].name} is "
                "in between: put Ensemble directly after FineTune"
            )
        balance = newest(earlier, Balance)
        augments = newest(earlier, Augment) or (balance and balance.method == "augment_minority")
        if not self._listed() and set(self.effective_vary) == {"augmentation"} and not augments:
            errors.append(f"vary={self.vary!r}: without Augment before it, all members are equal")
        return errors

    def distributions(self) -> tuple[str, ...]:
        members = (name for one in self._listed() for name in one.distributions())
        return tuple(dict.fromkeys((*self.packages, *members)))

    def check_surroundings(self, earlier: Sequence[Stage]) -> list[str]:
        recipe = newest(earlier, FineTune)
        if not self._listed():
            return recipe.check_surroundings(earlier) if recipe else []
        found: list[str] = []
        for index, one in enumerate(self._listed()):
            with error_of(f"members[{index}]"):
                found += one.check_surroundings(earlier)
        return list(dict.fromkeys(found))

    def rehearse(self, earlier: Sequence[Stage]) -> None:
        for index, one in enumerate(self._listed()):
            with error_of(f"members[{index}]"):
                one.rehearse(earlier)

    def run(self, context: Context) -> None:
        from kpipe.ensemble import assess
        from kpipe.prune import count_macs

        if is_saved(context.folder):
            return
        declared, go_on = self._members(context), self.on_failure == "go_on"
        members = train_members(declared, context.journal, go_on=go_on)
        reset_keras(context.seed)
        models, probabilities = [], []
        for member in members:
            model = load_model(member.folder)
            try:
                probabilities.append(predict(member, model))
                models.append(model)
            except TrainingError as error:
                if not go_on or member.folder.parent != context.folder:
                    raise
                member.drop(error, context.journal)
        members = refuse_too_few(declared)
        labels = members[0].photos.manifest.labels("validation")
        assessment, mixed = assess(probabilities, labels), None
        if self.combine == "soup":
            assessment, mixed = mix(members[0], models, assessment)
        choice = Choice(self.combine, members, assessment, mixed)
        context.journal.record("note", text=choice.note())
        report = json.dumps(choice.report(declared), indent=1)
        write_text(context.folder / "ensemble.json", report)
        trained = [one.folder for one in members if one.folder.parent == context.folder]
        join_histories(context.folder, trained)
        if self._listed():
            _write_best(members[choice.assessment.best], context.folder / "model")
        model, about = choice.build(models), {"title": choice.title()}
        if mixed is not None:
            # Later stages go on with it, as with any other single network.
            (context.folder / "model").mkdir(exist_ok=True)
            metadata = read_metadata(members[0].folder)
            metadata["title"] += ", soup" if choice.improves else ", best snapshot"
            save_model(model, context.folder / "model", **metadata)
        networks = [model] if mixed is not None else [models[index] for index in choice.used]
        save_model(model, context.folder, **about, macs=sum(map(count_macs, networks)))

    def judge(self, result: Path) -> list[str]:
        report = json.loads((result / "ensemble.json").read_text(encoding="utf-8"))
        failed = [
            f"{row['title']}: {row['failed']}" for row in report["members"] if "failed" in row
        ]
        if failed and self.on_failure == "stop":
            raise TrainingError(
                f"{len(failed)} of {len(report['members'])} members of the ensemble failed",
                received="; ".join(failed),
                fix="accept the others with --set Ensemble.on_failure=go_on, or train all members "
                "again with --fresh",
            )
        return []

    def _listed(self) -> tuple[FineTune, ...]:
        return self.members if isinstance(self.members, tuple) else ()

    def _invalid_members(self) -> list[str]:
        return [
            f"members[{index}]: {error}"
            for index, one in enumerate(self._listed())
            for error in one.validation_errors()
        ]

    def _equal_members(self) -> list[str]:
        count = len(self.members) if isinstance(self.members, tuple) else self.members
        if not 2 <= count <= _MOST:
            return [f"members: expected between 2 and {_MOST}, received a list of {count}"]
        differ = {"seed", "resample", "snapshot"} & set(self.effective_vary)
        if isinstance(self.members, tuple):
            repeated = [
                one for index, one in enumerate(self.members) if one in self.members[:index]
            ]
            if repeated and not differ:
                return [f"vary={self.vary!r}: members that are declared alike are equal"]
        elif not self.effective_vary:
            return ["vary=(): all members are equal; name what distinguishes them"]
        return []

    def _snapshot_conflicts(self) -> list[str]:
        snapshots = "snapshot" in self.effective_vary
        errors = []
        if self.combine == "soup" and not snapshots:
            errors.append(
                f'combine="soup" with vary={self.vary!r}: the mean of the weights of networks that '
                'were trained apart is of no use; write vary="snapshot"'
            )
        if snapshots and self._listed():
            errors.append("snapshots repeat the FineTune before them: write their number, no list")
        if self.cycle_epochs is not None and not snapshots:
            errors.append(
                f'cycle_epochs={self.cycle_epochs} is for vary="snapshot", not vary={self.vary!r}'
            )
        return errors

    def _members(self, context: Context) -> list[Member]:
        """Return the members, with the photos and the folder of each."""
        base = PhotoDataset.read(context)
        recipes: Sequence[FineTune] = self._listed()
        if isinstance(self.members, int):
            recipe = FineTune(**read_metadata(context.newest("model"))["recipe"])
            further = recipe
            if "snapshot" in self.effective_vary:
                further = cycle_of(recipe, self.cycle_epochs, base)
            recipes = [recipe, *[further] * (self.members - 1)]
        members = []
        for number, recipe in enumerate(recipes, 1):
            title = f"member {number} of {len(recipes)}"
            title += f", {recipe.title}" if self._listed() else ""
            folder = context.folder / f"member-{number}"
            if number == 1 and not self._listed():
                folder = context.newest("model")
            photos = dataclasses.replace(base, batch_size=recipe.batch_size)
            varied = self._varied(photos, number, len(recipes))
            follows = number > 1 and "snapshot" in self.effective_vary
            members.append(Member(title, recipe.title, recipe, varied, folder, follows))
        return members

    def _varied(self, photos: PhotoDataset, number: int, count: int) -> PhotoDataset:
        """Return the photos of a member, which differ from those of the first by `vary`."""
        if number == 1:
            return photos
        vary = self.effective_vary
        seed = photos.seed + 1000 * number
        # Evenly spaced strengths in [0.5, 1.5]; the first member has 1.
        strength = 0.5 + (number - 1.5) / (count - 1) if "augmentation" in vary else 1.0
        return dataclasses.replace(
            photos.reseeded(seed if {"seed", "snapshot"} & set(vary) else photos.seed, strength),
            bootstrap=seed if "resample" in vary else None,
            # Members that differ by the strength alone would be equal on the same features.
            feature_source=photos if set(vary) != {"augmentation"} else None,
        )


def _write_best(member: Member, folder: Path) -> None:
    """Write the model folder of the best member, for later stages."""
    folder.mkdir(exist_ok=True)
    shutil.copyfile(member.folder / "model.keras", folder / "model.keras")
    about = {**read_metadata(member.folder), "title": member.network}
    write_text(folder / "model.json", json.dumps(about, indent=1))
