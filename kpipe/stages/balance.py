"""Balance: uneven classes made even.

balance folder := balance.json {"method",
                                "sampling": the fields of a Sampling, or null,
                                "class_weight": [one factor per class], or null,
                                "frequencies": {"before", "after": [one share per class]}}
"""

from __future__ import annotations

import json
from typing import Annotated, ClassVar, Literal

from kpipe.core.fields import Between
from kpipe.core.stage import Context, Stage, stage

__all__ = ["Balance"]


@stage
class Balance(Stage):
    """Uneven classes made even, in the loss or by which photos an epoch shows.

    Args:
        method: "class_weight" counts the photos of a rare class more in the loss; "oversample"
            repeats them, each augmented anew; "undersample" shows fewer of the others, in each
            epoch other ones; "augment_minority" repeats rare photos and augments the repeats alone
            (which may teach the model to take augmentation for the mark of a rare class).
        weighting: of weights, "balanced" counts every class the same; "effective" between that and
            no weights, by the effective number of photos (Cui et al. 2019).
        beta: of "effective": near 0 is no weights, near 1 is "balanced".
        ratio: of sampling, of the smallest class to the largest at least; 1 makes all even.
        and_class_weight: of sampling, weights too, computed on what sampling leaves uneven.
    """

    needs: ClassVar = ("data",)
    gives: ClassVar = ("balance",)
    version: ClassVar = 2
    packages: ClassVar = ("scikit-learn",)
    duplicate_hint: ClassVar = (
        "keep one; for sampling and weights together, declare and_class_weight=True"
    )

    method: Literal["class_weight", "oversample", "undersample", "augment_minority"] = (
        "class_weight"
    )
    weighting: Literal["balanced", "effective"] = "balanced"
    beta: Annotated[float, Between(0, 1, strict=True)] = 0.999
    ratio: Annotated[float, Between(0, 1), Between(0, strict=True)] = 1.0
    and_class_weight: bool = False

    @property
    def weighs(self) -> bool:
        """Whether classes get weights in the loss."""
        return self.method == "class_weight" or self.and_class_weight

    def validation_errors(self) -> list[str]:
        return super().validation_errors() or self._idle_fields()

    def _idle_fields(self) -> list[str]:
        """Fields that the method does not use; a value that is the default's cannot be told."""
        samples = self.method != "class_weight"
        uses = {
            "weighting": (self.weighs, "and_class_weight=True"),
            "beta": (self.weighs and self.weighting == "effective", 'weighting="effective"'),
            "ratio": (samples, 'a sampling method such as "oversample"'),
            "and_class_weight": (samples, 'a sampling method such as "oversample"'),
        }
        return [
            f"{name}={getattr(self, name)!r}: does nothing without {needed}"
            for name, (used, needed) in uses.items()
            if not used and getattr(self, name) != getattr(type(self), name)
        ]

    def run(self, context: Context) -> None:
        import numpy as np

        from kpipe.data import Manifest, Sampling, class_shares, class_weight
        from kpipe.data.balancing.sampling import counted

        manifest = Manifest.load(context.newest("data"))
        labels, counts = counted(manifest.labels("train"), manifest.classes)
        shown = dict(enumerate(counts.tolist()))
        sampling = weights = None
        if self.method != "class_weight":
            sampling = Sampling(self.method, self.ratio)
            shown = sampling.targets(labels)
        if self.weighs:
            # On what sampling leaves, so that nothing is made up for twice.
            left = np.repeat(list(shown), list(shown.values()))
            weights = class_weight(left, manifest.classes, self.weighting, self.beta)
        before, after = class_shares(labels), class_shares(labels, sampling, weights)
        told = ", ".join(
            f"{name} {before[i]:.1%} -> {after[i]:.1%} ({_told(int(counts[i]), shown[i])}"
            + (f", x{weights[i]:.2f})" if weights else ")")
            for i, name in enumerate(manifest.classes)
        )
        context.journal.record(
            "note", text=f"share of each class in the loss, by {self._title}: {told}"
        )
        about = {
            "method": self.method,
            "sampling": {"method": self.method, "ratio": self.ratio} if sampling else None,
            "class_weight": list(weights.values()) if weights else None,
            "frequencies": {"before": list(before.values()), "after": list(after.values())},
        }
        (context.folder / "balance.json").write_text(json.dumps(about), encoding="utf-8")

    @property
    def _title(self) -> str:
        return f"{self.method} and class_weight" if self.and_class_weight else self.method


def _told(count: int, shown: int) -> str:
    return f"{count} photos" if shown == count else f"{count} -> {shown} photos"
