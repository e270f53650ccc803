"""Balance: classes of different sizes, balanced in the loss or in each epoch.

balance folder := balance.json {"method",
                                "sampling": the fields of a Sampling, or null,
                                "class_weight": [one factor per class], or null,
                                "frequencies": {"before", "after": [share of the loss per class]}}
"""

from __future__ import annotations

import json
from typing import Annotated, ClassVar, Literal

from kpipe.core.fields import Between
from kpipe.core.stage import Context, Stage, stage

__all__ = ["Balance"]


@stage
class Balance(Stage):
    """Balance classes of different sizes, in the loss or by which photos an epoch shows.

    Args:
        method: "class_weight" gives photos of rare classes a larger loss; "oversample" repeats
            them, each augmented differently; "undersample" leaves out photos of the other classes,
            different ones in each epoch; "augment_minority" repeats rare photos and augments only
            the repeats (from which the model may learn that augmented photos are rare classes).
        weighting: "balanced" weights all classes equally; "effective" weights them by the effective
            number of photos (Cui et al. 2019).
        beta: for "effective": 0 is no weights, and the limit at 1 is "balanced".
        ratio: for sampling, the size of the smallest class relative to the largest, at least; 1
            makes all classes equal.
        and_class_weight: whether sampling also uses weights, computed for the sampled classes.

    Example:
        >>> from kpipe.stages import Balance
        >>> Balance("oversample", ratio=0.5).validation_errors()
        []
        >>> Balance("class_weight", ratio=0.5).validation_errors()
        ['ratio=0.5: does nothing without a sampling method such as "oversample"']
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
        """Whether classes are weighted in the loss."""
        return self.method == "class_weight" or self.and_class_weight

    def validation_errors(self) -> list[str]:
        return super().validation_errors() or self._idle_fields()

    def _idle_fields(self) -> list[str]:
        """One sentence for each field with another value than its default that has no effect."""
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
        from kpipe.data.balancing.class_counts import count_classes

        manifest = Manifest.load(context.newest("data"))
        labels, counts = count_classes(manifest.labels("train"), manifest.classes)
        shown = dict(enumerate(counts.tolist()))
        sampling = weights = None
        if self.method != "class_weight":
            sampling = Sampling(self.method, self.ratio)
            shown = sampling.targets(labels)
        if self.weighs:
            # For the sampled classes, so that nothing is balanced twice.
            sampled = np.repeat(list(shown), list(shown.values()))
            weights = class_weight(sampled, manifest.classes, self.weighting, self.beta)
        before, after = class_shares(labels), class_shares(labels, sampling, weights)
        changes = ", ".join(
            f"{name} {before[i]:.1%} -> {after[i]:.1%} ({_photos(int(counts[i]), shown[i])}"
            + (f", x{weights[i]:.2f})" if weights else ")")
            for i, name in enumerate(manifest.classes)
        )
        context.journal.record(
            "note", text=f"fraction of the loss for each class, by {self._title}: {changes}"
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


def _photos(count: int, shown: int) -> str:
    return f"{count} photos" if shown == count else f"{count} -> {shown} photos"
