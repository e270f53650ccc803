"""Augment: random changes of the training photos, drawn anew for each photo in each epoch.

augmentation folder := augmentation.json  {"augmenter": the fields of an Augmenter,
                                           "mixer": the fields of a Mixer}
                       contact_sheet.jpg  training photos beside augmented versions of them
"""

from __future__ import annotations

import json
from typing import Annotated, ClassVar

from kpipe.core.stage import Context, Stage, stage
from kpipe.data.augmentation.strengths import ALPHAS, STRENGTHS, Flip

__all__ = ["Augment"]


@stage
class Augment(Stage):
    """Augment each training photo anew in each epoch.

    See `kpipe.data.Augmenter` and `kpipe.data.Mixer` for the operations and
    `kpipe.data.augmentation.strengths` for the ranges.

    Args:
        flip: axes along which half of the photos are mirrored; "" for none.
        rotate: largest rotation in either direction, as a fraction of a full turn.
        brightness: largest shift, as a fraction of the value range.
        contrast: largest relative change of the contrast.
        color: strength of saturation and hue changes, in one number.
        blur: probability of a Gaussian blur.
        crop: smallest fraction of each side that a random crop keeps; 1 disables it.
        translate: largest shift, as a fraction of each side.
        zoom: largest relative change of the visible region.
        saturation: largest relative change of the saturation; needs color=0.
        hue: largest shift, as a fraction of the color wheel; needs color=0.
        noise: largest standard deviation of Gaussian noise, as a fraction of the value range.
        jpeg: lowest JPEG quality, in [1, 100]; 100 disables it.
        erase: probability of a gray rectangle.
        grid_mask: probability of a grid of gray squares.
        channel_shuffle: probability of a random order of the color channels.
        rand_augment: magnitude of RandAugment, as a fraction of the paper's largest.
        aug_mix: severity of AugMix, as a fraction of the paper's largest.
        mix_up: alpha of MixUp, which mixes photos and labels; 0 disables it.
        cut_mix: alpha of CutMix, which mixes photos and labels; 0 disables it.
        fourier_mix: alpha of FMix, which mixes photos and labels; 0 disables it.

    Example:
        >>> from kpipe.stages import Augment
        >>> Augment(flip="vertical", rotate=0.1).rotate
        0.1
        >>> Augment(rotate=0.7).validation_errors()
        ['rotate=0.7: expected a number between 0 and 0.5']
    """

    needs: ClassVar = ("data",)
    gives: ClassVar = ("augmentation",)
    version: ClassVar = 2
    packages: ClassVar = ("keras", "keras-cv", "pillow", "tensorflow")

    flip: Flip = "horizontal"
    rotate: Annotated[float, STRENGTHS["rotate"]] = 0.05
    brightness: Annotated[float, STRENGTHS["brightness"]] = 0.1
    contrast: Annotated[float, STRENGTHS["contrast"]] = 0.1
    color: Annotated[float, STRENGTHS["color"]] = 0.1
    blur: Annotated[float, STRENGTHS["blur"]] = 0.0
    crop: Annotated[float, STRENGTHS["crop"]] = 0.9
    translate: Annotated[float, STRENGTHS["translate"]] = 0.0
    zoom: Annotated[float, STRENGTHS["zoom"]] = 0.0
    saturation: Annotated[float, STRENGTHS["saturation"]] = 0.0
    hue: Annotated[float, STRENGTHS["hue"]] = 0.0
    noise: Annotated[float, STRENGTHS["noise"]] = 0.0
    jpeg: Annotated[float, STRENGTHS["jpeg"]] = 100
    erase: Annotated[float, STRENGTHS["erase"]] = 0.0
    grid_mask: Annotated[float, STRENGTHS["grid_mask"]] = 0.0
    channel_shuffle: Annotated[float, STRENGTHS["channel_shuffle"]] = 0.0
    rand_augment: Annotated[float, STRENGTHS["rand_augment"]] = 0.0
    aug_mix: Annotated[float, STRENGTHS["aug_mix"]] = 0.0
    mix_up: Annotated[float, ALPHAS["mix_up"]] = 0.0
    cut_mix: Annotated[float, ALPHAS["cut_mix"]] = 0.0
    fourier_mix: Annotated[float, ALPHAS["fourier_mix"]] = 0.0

    def validation_errors(self) -> list[str]:
        errors = super().validation_errors()
        parts = [name for name in ("saturation", "hue") if getattr(self, name)]
        if not errors and self.color and parts:
            errors.append(
                f"color={self.color!r} is saturation and hue in one number: "
                f"write color=0 beside {' and '.join(parts)}"
            )
        return errors

    def run(self, context: Context) -> None:
        import numpy as np

        from kpipe.data import Augmenter, Manifest, Mixer, contact_sheet

        fields = self.configuration()
        mixer = {name: fields.pop(name) for name in ALPHAS}
        text = json.dumps({"augmenter": fields, "mixer": mixer})
        (context.folder / "augmentation.json").write_text(text, encoding="utf-8")
        folder = context.newest("data")
        sheet = contact_sheet(
            Manifest.load(folder),
            np.load(folder / "images.npy", mmap_mode="r"),
            Augmenter(**fields),
            mixer=Mixer(**mixer) if any(mixer.values()) else None,
            seed=context.seed,
        )
        sheet.save(context.folder / "contact_sheet.jpg", quality=85)
