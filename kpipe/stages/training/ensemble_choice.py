"""How the members of an ensemble are combined, decided on the validation photos.

ensemble.json := {"combine": what was declared,
                  "chosen": the same, or the title of the best member alone,
                  "photos": validation photos,
                  "members": [{"title", "network", "loss", "accuracy", "weight"}
                              or {"title", "network", "failed": why}],
                  "combinations": [{"name", "loss", "accuracy", "weights"}],
                  "disagreement": (members, members), fraction of photos,
                  "oracle": fraction of photos that some member predicts correctly}
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kpipe.errors import TrainingError
from kpipe.stages.training.member_training import Member

if TYPE_CHECKING:
    import keras
    import numpy as np

    from kpipe.ensemble import Assessment

__all__ = ["Choice", "predict"]

_BATCH = 64


def predict(member: Member, model: keras.Model) -> np.ndarray:
    """Return the probabilities of the validation photos, (photos, classes).

    Raises:
        TrainingError: some are NaN or infinite.
    """
    import numpy as np

    # Not `model.predict`, which would first trace each member: longer than it takes to predict.
    batches = member.photos.evaluation_dataset("validation", _BATCH)
    found = np.concatenate([model(batch[0], training=False).numpy() for batch in batches])
    if not np.isfinite(found).all():
        raise TrainingError(
            f"{member.title} predicts NaN or infinity",
            expected="probabilities",
            received=f"for {(~np.isfinite(found)).any(axis=1).sum():,} of {len(found):,} "
            "validation photos",
            fix="train it with a lower learning rate, or leave it out",
        )
    return found


@dataclasses.dataclass(frozen=True)
class Choice:
    """The declared combination, or the best member where that is no better.

    Attributes:
        combine: the declared combination.
        members: those that were trained.
        assessment: what they are worth on the validation photos.
        soup: the soup of the members, where that is declared; it is the best member where no soup
            is better.
    """

    combine: str
    members: Sequence[Member]
    assessment: Assessment
    soup: keras.Model | None = None

    @property
    def improves(self) -> bool:
        """Whether the combination is better than the best member."""
        return self.assessment.improves(self.combine)

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight of each member."""
        if self.improves:
            return self.assessment.combinations[self.combine].weights
        return self.assessment.members[self.assessment.best].weights

    @property
    def used(self) -> list[int]:
        """The indices of the members with a weight."""
        return [index for index, weight in enumerate(self.weights) if weight > 0]

    def build(self, models: Sequence[keras.Model]) -> keras.Model:
        """Return the ensemble of the members' models, or the model of the best member."""
        from kpipe.ensemble import average, geometric_average, vote

        if self.soup is not None:
            return self.soup
        used = [models[index] for index in self.used]
        weights = [self.weights[index] for index in self.used]
        if len(used) == 1:
            return used[0]
        if self.combine == "vote":
            return vote(used)
        return (geometric_average if self.combine == "geometric" else average)(used, weights)

    def title(self) -> str:
        """Return the name of the ensemble in tables."""
        how = self.combine if self.improves else "best member"
        return f"ensemble of {len(self.members)} ({how})"

    def note(self) -> str:
        """Return a sentence for the journal."""
        found = self.assessment
        best, combined = found.members[found.best], found.combinations[self.combine]
        pairs = [x for n, row in enumerate(found.disagreement) for x in row[:n]]
        facts = (
            f"{self.combine}: accuracy {combined.accuracy:.1%}, cross-entropy {combined.loss:.3f}; "
            f"best member, {self.members[found.best].title}: {best.accuracy:.1%}, {best.loss:.3f}; "
            f"two members disagree on {sum(pairs) / len(pairs):.1%}, and at least one is right on "
            f"{found.oracle:.1%} of {found.photos:,} validation photos"
        )
        if self.improves:
            return facts
        return f"{facts}. The combination is no better, so the ensemble is that member alone"

    def report(self, declared: Sequence[Member]) -> dict[str, Any]:
        """Return the content of `ensemble.json`.

        Args:
            declared: all members, with those that failed.
        """
        found = self.assessment
        scores = dict(
            zip(
                (member.title for member in self.members),
                zip(found.members, self.weights, strict=True),
                strict=True,
            )
        )
        rows: list[dict[str, Any]] = []
        for member in declared:
            row: dict[str, Any] = {"title": member.title, "network": member.network}
            if member.title in scores:
                score, weight = scores[member.title]
                row |= {"loss": score.loss, "accuracy": score.accuracy, "weight": weight}
            else:
                row |= {"failed": member.failure}
            rows.append(row)
        return {
            "combine": self.combine,
            "chosen": self.combine if self.improves else self.members[found.best].title,
            "photos": found.photos,
            "members": rows,
            "combinations": [dataclasses.asdict(score) for score in found.combinations.values()],
            "disagreement": found.disagreement,
            "oracle": found.oracle,
        }
