"""The augmentations with the ranges of their strengths: the one table of all of them.

    STRENGTHS := field of `kpipe.data.Augmenter` -> range    ALPHAS := field of `Mixer` -> range

`Augmenter`, `Mixer` and the stage `kpipe.stages.Augment` check their fields against it. It imports
no TensorFlow, so that a pipeline can be declared and planned without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

__all__ = ["ALPHAS", "FLIPS", "STRENGTHS", "Flip", "StrengthRange", "invalid_strengths"]

Flip: TypeAlias = Literal["horizontal", "vertical", "horizontal_and_vertical", ""]
FLIPS = get_args(Flip)


@dataclass(frozen=True)
class StrengthRange:
    """The valid strengths of an augmentation: `low` to `high`, or `off`, which disables it."""

    low: float
    high: float
    off: float = 0.0

    def __contains__(self, strength: float) -> bool:
        return strength == self.off or self.low <= strength <= self.high

    def __str__(self) -> str:
        text = f"between {self.low} and {self.high}"
        return text if self.low <= self.off <= self.high else f"that is {self.off:g} or {text}"


STRENGTHS = {
    "rotate": StrengthRange(0, 0.5),
    "translate": StrengthRange(0, 0.5),
    "zoom": StrengthRange(0, 0.9),
    "crop": StrengthRange(0.1, 1, off=1),
    "brightness": StrengthRange(0, 1),
    "contrast": StrengthRange(0, 1),
    "color": StrengthRange(0, 1),
    "saturation": StrengthRange(0, 1),
    "hue": StrengthRange(0, 0.5),
    "channel_shuffle": StrengthRange(0, 1),
    "blur": StrengthRange(0, 1),
    "noise": StrengthRange(0, 1),
    "jpeg": StrengthRange(1, 100, off=100),
    "rand_augment": StrengthRange(0, 1),
    "aug_mix": StrengthRange(0, 1),
    "erase": StrengthRange(0, 1),
    "grid_mask": StrengthRange(0, 1),
}
# Below 0.05 both gamma draws behind a Beta draw may underflow, and lambda would come out as 0.5.
ALPHAS = {
    "mix_up": StrengthRange(0.05, 10),
    "cut_mix": StrengthRange(0.05, 1),  # the range of Keras' layer
    "fourier_mix": StrengthRange(0.05, 10),
}


def invalid_strengths(settings: object, ranges: Mapping[str, StrengthRange]) -> list[str]:
    """Return one message for each attribute of `settings` that is out of its range."""
    return [
        f"{name}={getattr(settings, name)!r}: expected a number {valid}"
        for name, valid in ranges.items()
        if getattr(settings, name) not in valid
    ]
