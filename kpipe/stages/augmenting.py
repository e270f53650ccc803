"""Augment: what is drawn for each photo in each epoch.

augmentation folder := augmentation.json, the fields of an Augmenter
"""

from __future__ import annotations

import json
from typing import Annotated, ClassVar, Literal

from kpipe.core.fields import Between
from kpipe.core.stage import Context, Stage, stage

__all__ = ["Augment"]

Share = Annotated[float, Between(0, 1)]


@stage
class Augment(Stage):
    """Each photo changed anew in each epoch, its label kept; see `kpipe.data.Augmenter`.

    Args:
        flip: the axes along which half of the photos are mirrored.
        rotate: the largest rotation, as a share of a full turn.
        brightness: the largest change, as a share of the value range.
        contrast: the largest relative change.
        color: the strength of changes of saturation and hue.
        blur: the share of photos that are blurred.
        crop: the smallest share of the side that a random crop keeps; 1 crops nothing.
    """

    needs: ClassVar = ("data",)
    gives: ClassVar = ("augmentation",)

    flip: Literal["horizontal", "vertical", "horizontal_and_vertical", ""] = "horizontal"
    rotate: Annotated[float, Between(0, 0.5)] = 0.05
    brightness: Share = 0.1
    contrast: Share = 0.1
    color: Share = 0.1
    blur: Share = 0.0
    crop: Annotated[float, Between(0.1, 1)] = 0.9

    def run(self, context: Context) -> None:
        (context.folder / "augmentation.json").write_text(
            json.dumps(self.configuration()), encoding="utf-8"
        )
