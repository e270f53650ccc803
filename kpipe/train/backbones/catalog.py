"""What each backbone accepts, without importing Keras.

A pipeline must reject a misspelt name, a width or an image size that the architecture does not have
when it is declared. So the names are parsed from the source of `keras.applications`, and the few
facts below are listed; tests compare both with the constructors.
"""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kpipe.errors import WeightsError, nearest
from kpipe.installation import missing_package
from kpipe.train.backbones.hub_catalog import HUB_PREFIX, hub_presets, is_hub, refuse_preset

__all__ = [
    "OWN_BACKBONES",
    "BackboneFacts",
    "backbone_facts",
    "backbone_names",
    "refuse_name",
    "refuse_size",
    "refuse_weights_name",
    "refuse_width",
]

OWN_BACKBONES = ("EfficientNetLite0", "EfficientNetLite1", "EfficientNetLite2")
_WEIGHTS_FILES = (".h5", ".hdf5", ".keras")


@dataclass(frozen=True)
class BackboneFacts:
    """What one constructor accepts.

    Attributes:
        smallest: pixels of the shorter side of the smallest image.
        alphas: width multipliers with published ImageNet weights; empty if it has no alpha.
        narrowest: the smallest alpha that leaves every layer a filter.
    """

    smallest: int = 32
    alphas: tuple[float, ...] = ()
    narrowest: float = 0.0


_FACTS = {
    **dict.fromkeys(OWN_BACKBONES, BackboneFacts(smallest=1)),
    "InceptionResNetV2": BackboneFacts(smallest=75),
    "InceptionV3": BackboneFacts(smallest=75),
    "MobileNet": BackboneFacts(alphas=(0.25, 0.5, 0.75, 1.0), narrowest=1 / 32),
    "MobileNetV2": BackboneFacts(alphas=(0.35, 0.5, 0.75, 1.0, 1.3, 1.4)),
    "MobileNetV3Large": BackboneFacts(alphas=(0.75, 1.0)),
    "MobileNetV3Small": BackboneFacts(alphas=(0.75, 1.0)),
    "Xception": BackboneFacts(smallest=71),
}


@cache
def backbone_names() -> tuple[str, ...]:
    """Return the names that `kpipe.train.backbone` accepts, sorted.

    Example:
        >>> from kpipe.train import backbone_names
        >>> [name for name in backbone_names() if "Lite" in name]
        ['EfficientNetLite0', 'EfficientNetLite1', 'EfficientNetLite2']
    """
    found = importlib.util.find_spec("keras")
    if found is None or not found.submodule_search_locations:
        raise missing_package("the list of backbones", "keras")
    index = Path(found.submodule_search_locations[0], "applications", "__init__.py")
    names = [
        alias.name
        for statement in ast.parse(index.read_text(encoding="utf-8")).body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
        if alias.name[0].isupper()  # a constructor; the others are modules
    ]
    return tuple(sorted([*names, *OWN_BACKBONES]))


def backbone_facts(name: str) -> BackboneFacts:
    """Return the facts of a backbone."""
    return _FACTS.get(name, BackboneFacts())


def refuse_name(name: str) -> None:
    """Refuse a name that is neither one of `backbone_names()` nor a preset of KerasHub.

    Raises:
        WeightsError: it is neither; the message names the closest one.
    """
    if is_hub(name):
        refuse_preset(name)
    elif name not in backbone_names():
        hub = name in hub_presets()
        raise WeightsError(
            f"there is no backbone {name!r}",
            received=name,
            fix=f"did you mean {HUB_PREFIX + name!r}?" if hub else nearest(name, backbone_names()),
        )


def refuse_width(name: str, alpha: float, weights: str | Path | None) -> None:
    """Refuse a width multiplier that a backbone does not have.

    Raises:
        WeightsError: it has no alpha, a layer would have no filters, or no ImageNet weights exist.
    """
    facts = backbone_facts(name)
    if not facts.alphas:
        wide = [other for other, facts in _FACTS.items() if facts.alphas]
        raise WeightsError(
            f"{name} has no alpha",
            expected=f"alpha for one of {', '.join(wide)}",
            received=f"alpha={alpha!r}",
            fix="leave alpha out, or choose one of these",
        )
    if weights == "imagenet" and alpha not in facts.alphas:
        raise WeightsError(
            f"there are no ImageNet weights for {name} with alpha={alpha!r}",
            expected=f"alpha among {', '.join(map(str, facts.alphas))}",
            received=f"alpha={alpha!r}",
            fix="choose one of these, or weights=None for random weights",
        )
    if alpha < facts.narrowest:
        raise WeightsError(
            f"alpha={alpha!r} leaves {name} layers without filters",
            expected=f"{facts.narrowest} or more",
            received=f"alpha={alpha!r}",
        )


def refuse_size(name: str, height: int, width: int) -> None:
    """Refuse an image that is too small for a backbone.

    Raises:
        WeightsError: a side is too short.
    """
    smallest = backbone_facts(name).smallest
    if min(height, width) < smallest:
        raise WeightsError(
            f"{name} cannot take images of {height} x {width}",
            expected=f"images of {smallest} x {smallest} pixels or more",
            received=f"{height} x {width}",
        )


def refuse_weights_name(weights: str | Path) -> None:
    """Refuse weights that are neither "imagenet" nor the name of a file, which need not exist.

    Raises:
        WeightsError: it is neither.
    """
    if weights == "imagenet" or str(weights).endswith(_WEIGHTS_FILES):
        return
    hint = nearest(weights, ["imagenet"])
    raise WeightsError(
        f"weights={str(weights)!r} is not a weights file",
        expected=f'"imagenet", None, or a file that ends in {", ".join(_WEIGHTS_FILES)}',
        received=str(weights),
        fix=hint if "mean" in hint else "save the weights with model.save_weights",
    )
