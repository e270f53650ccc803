"""Augment: what is drawn for each photo in each epoch.

augmentation folder := augmentation.json  {"augmenter": the fields of an Augmenter,
                                           "mixer": the fields of a Mixer}
                       contact_sheet.jpg  training photos beside what the network will see
"""

from __future__ import annotations

import json
from typing import Annotated, ClassVar, Literal

from kpipe.core.fields import Between
from kpipe.core.stage import Context, Stage, stage

__all__ = ["Augment"]

Share = Annotated[float, Between(0, 1)]
Off = Annotated[float, Between(0, 0)]
Alpha = Off | Annotated[float, Between(0.05, 10)]

_MIXING = ("mix_up", "cut_mix", "fourier_mix")


@stage
class Augment(Stage):
    """Each photo changed anew in each epoch; see `kpipe.data.Augmenter` and `kpipe.data.Mixer`.

    Args:
        flip: the axes along which half of the photos are mirrored.
        rotate: the largest rotation, as a share of a full turn.
        brightness: the largest change, as a share of the value range.
        contrast: the largest relative change.
        color: the strength of changes of saturation and hue, in one number.
        blur: the share of photos that are blurred.
        crop: the smallest share of the side that a random crop keeps; 1 crops nothing.
        translate: the largest shift, as a share of the side.
        zoom: the largest relative change of the part in view.
        saturation: the largest relative change; needs color=0.
        hue: the largest turn, as a share of the color wheel; needs color=0.
        noise: the largest standard deviation, as a share of the value range.
        jpeg: the lowest quality of compression; 100 compresses nothing.
        erase: the share of photos with a grey rectangle.
        grid_mask: the share of photos under a grid of grey squares.
        channel_shuffle: the share of photos with their color channels in another order.
        rand_augment: the magnitude of RandAugment, as a share of the paper's largest.
        aug_mix: the severity of AugMix, as a share of the paper's largest.
        mix_up: alpha of MixUp, which mixes photos and labels; 0 mixes nothing.
        cut_mix: alpha of CutMix, which mixes photos and labels; 0 mixes nothing.
        fourier_mix: alpha of FMix, which mixes photos and labels; 0 mixes nothing.
    """

    needs: ClassVar = ("data",)
    gives: ClassVar = ("augmentation",)
    version: ClassVar = 2
    packages: ClassVar = ("keras", "keras-cv", "pillow", "tensorflow")

    flip: Literal["horizontal", "vertical", "horizontal_and_vertical", ""] = "horizontal"
    rotate: Annotated[float, Between(0, 0.5)] = 0.05
    brightness: Share = 0.1
    contrast: Share = 0.1
    color: Share = 0.1
    blur: Share = 0.0
    crop: Annotated[float, Between(0.1, 1)] = 0.9
    translate: Annotated[float, Between(0, 0.5)] = 0.0
    zoom: Annotated[float, Between(0, 0.9)] = 0.0
    saturation: Share = 0.0
    hue: Annotated[float, Between(0, 0.5)] = 0.0
    noise: Share = 0.0
    jpeg: Annotated[float, Between(1, 100)] = 100
    erase: Share = 0.0
    grid_mask: Share = 0.0
    channel_shuffle: Share = 0.0
    rand_augment: Share = 0.0
    aug_mix: Share = 0.0
    mix_up: Alpha = 0.0
    cut_mix: Off | Annotated[float, Between(0.05, 1)] = 0.0
    fourier_mix: Alpha = 0.0

    def validation_errors(self) -> list[str]:
        problems = super().validation_errors()
        beside = [name for name in ("saturation", "hue") if getattr(self, name)]
        if not problems and self.color and beside:
            problems.append(
                f"color={self.color!r} is saturation and hue in one number: "
                f"write color=0 beside {' and '.join(beside)}"
            )
        return problems

    def run(self, context: Context) -> None:
        import numpy as np

        from kpipe.data import Augmenter, Manifest, Mixer, contact_sheet

        fields = self.configuration()
        mixer = {name: fields.pop(name) for name in _MIXING}
        about = {"augmenter": fields, "mixer": mixer}
        (context.folder / "augmentation.json").write_text(json.dumps(about), encoding="utf-8")
        folder = context.newest("data")
        sheet = contact_sheet(
            Manifest.load(folder),
            np.load(folder / "images.npy", mmap_mode="r"),
            Augmenter(**fields),
            mixer=Mixer(**mixer) if any(mixer.values()) else None,
            seed=context.seed,
        )
        sheet.save(context.folder / "contact_sheet.jpg", quality=85)
