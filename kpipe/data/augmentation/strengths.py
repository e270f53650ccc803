"""The range of each augmentation's strength, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["ALPHAS", "FLIPS", "STRENGTHS", "Strength", "check_strengths"]


@dataclass(frozen=True)
class Strength:
    """The range of a strength, and the value that turns the augmentation off."""

    low: float
    high: float
    off: float = 0.0


FLIPS = ("", "horizontal", "vertical", "horizontal_and_vertical")
# Of an `Augmenter`.
STRENGTHS = {
    "rotate": Strength(0, 0.5),
    "translate": Strength(0, 0.5),
    "zoom": Strength(0, 0.9),
    "crop": Strength(0.1, 1, off=1),
    "brightness": Strength(0, 1),
    "contrast": Strength(0, 1),
    "color": Strength(0, 1),
    "saturation": Strength(0, 1),
    "hue": Strength(0, 0.5),
    "channel_shuffle": Strength(0, 1),
    "blur": Strength(0, 1),
    "noise": Strength(0, 1),
    "jpeg": Strength(1, 100, off=100),
    "rand_augment": Strength(0, 1),
    "aug_mix": Strength(0, 1),
    "erase": Strength(0, 1),
    "grid_mask": Strength(0, 1),
}
# Of a `Mixer`. Below 0.05, both gamma draws behind a beta draw may underflow, which gives 0.5.
ALPHAS = {
    "mix_up": Strength(0.05, 10),
    "cut_mix": Strength(0.05, 1),  # the largest that Keras' layer accepts
    "fourier_mix": Strength(0.05, 10),
}


def check_strengths(settings: object, strengths: Mapping[str, Strength]) -> list[str]:
    """Return one sentence for each strength that is neither off nor in its range."""
    errors = []
    for name, strength in strengths.items():
        value, low, high, off = getattr(settings, name), strength.low, strength.high, strength.off
        if not (value == off or low <= value <= high):
            also = "" if low <= off <= high else f"{off:g}, or "
            errors.append(f"{name}={value!r}: expected {also}a number from {low:g} to {high:g}")
    return errors
