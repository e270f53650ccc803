"""Balance: uneven classes made even.

balance folder := balance.json {"method", "class_weight": [one factor per class]}
"""

from __future__ import annotations

import json
from typing import ClassVar, Literal

from kpipe.core.stage import Context, Stage, stage

__all__ = ["Balance"]


@stage
class Balance(Stage):
    """Uneven classes made even.

    Args:
        method: "class_weight" counts the photos of a rare class more in the loss.
    """

    needs: ClassVar = ("data",)
    gives: ClassVar = ("balance",)
    distributions: ClassVar = ("scikit-learn",)

    method: Literal["class_weight"] = "class_weight"

    def run(self, context: Context) -> None:
        from kpipe.data import Manifest, class_weight

        manifest = Manifest.load(context.newest("data"))
        weights = class_weight(manifest.labels("train"), range(len(manifest.classes)))
        told = ", ".join(f"{name} x{weights[i]:.2f}" for i, name in enumerate(manifest.classes))
        context.journal.record("note", text=f"class weights: {told}")
        about = {
            "method": self.method,
            "class_weight": [weights[i] for i in range(len(manifest.classes))],
        }
        (context.folder / "balance.json").write_text(json.dumps(about), encoding="utf-8")
