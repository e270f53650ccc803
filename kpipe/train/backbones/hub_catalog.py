"""What is known of KerasHub's presets without importing KerasHub or Keras.

    "hub:mobilenet_v3_large_100_imagenet"   a preset of the package, which Kaggle serves
    "hub:FOLDER"                            a preset that `save_to_preset` or a download left there
    "hub:kaggle://..." "hub:hf://..."       a handle that KerasHub takes, known only once it is read

The names and the addresses of the presets are parsed from the files of the package.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from kpipe.errors import WeightsError, nearest

__all__ = [
    "HUB_PREFIX",
    "find_preset",
    "hub_presets",
    "is_hub",
    "preset_folder",
    "refuse_class",
    "refuse_preset",
]

HUB_PREFIX = "hub:"
INSTALL = 'pip install "kpipe[keras_hub]"'
# Folder of a family in KerasHub -> class of its networks.
_FAMILIES = {
    "cspnet": "CSPNetBackbone",
    "densenet": "DenseNetBackbone",
    "efficientnet": "EfficientNetBackbone",
    "hgnetv2": "HGNetV2Backbone",
    "mobilenet": "MobileNetBackbone",
    "resnet": "ResNetBackbone",
    "vgg": "VGGBackbone",
    "xception": "XceptionBackbone",
}


def is_hub(name: str) -> bool:
    """Return whether a backbone is one of KerasHub.

    Example:
        >>> from kpipe.train.backbones.hub_catalog import is_hub
        >>> is_hub("hub:resnet_18_imagenet"), is_hub("ResNet50")
        (True, False)
    """
    return name.startswith(HUB_PREFIX)


@cache
def hub_presets() -> Mapping[str, str]:
    """Return the presets of convolutional networks in KerasHub: name -> handle on Kaggle.

    It is empty if KerasHub is not installed.
    """
    found = importlib.util.find_spec("keras_hub")
    if found is None or not found.submodule_search_locations:
        return {}
    models = Path(found.submodule_search_locations[0], "src", "models")
    return {
        name: handle
        for family in _FAMILIES
        for name, handle in _handles(models / family / f"{family}_presets.py").items()
    }


def _handles(file: Path) -> dict[str, str]:
    """Return the presets that a file of KerasHub lists, with their handles."""
    tables = [
        statement.value
        for statement in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict)
    ]
    rows = [row for table in tables for row in ast.literal_eval(table).items()]
    return {name: preset["kaggle_handle"] for name, preset in rows}


def refuse_preset(name: str) -> None:
    """Refuse a preset that KerasHub does not have, or that kpipe cannot use.

    Args:
        name: of the backbone, with "hub:".

    Raises:
        WeightsError: KerasHub is not installed, or the name is neither one of its convolutional
            presets, nor a handle, nor a folder with a preset of such a network.
    """
    preset = name.removeprefix(HUB_PREFIX)
    if importlib.util.find_spec("keras_hub") is None:
        raise WeightsError(
            f"{name!r} needs KerasHub, which is not installed",
            expected="the package keras-hub",
            fix=f"run: {INSTALL}, which installs KerasHub",
        )
    if preset in hub_presets() or "://" in preset:
        return
    if (folder := preset_folder(name)) is not None:
        _refuse_class(folder)
        return
    hint = nearest(preset, hub_presets()).replace("did you mean '", f"did you mean '{HUB_PREFIX}")
    raise WeightsError(
        f"KerasHub has no convolutional preset {preset!r}",
        expected="hub:NAME of a preset, or hub:FOLDER of one on this machine",
        received=name,
        fix=hint,
    )


def preset_folder(name: str) -> Path | None:
    """Return the folder that "hub:FOLDER" names, or None for a preset by its name or handle."""
    preset = name.removeprefix(HUB_PREFIX)
    return (
        Path(preset) if preset and preset not in hub_presets() and os.path.isdir(preset) else None
    )


def _refuse_class(folder: Path) -> None:
    config = folder / "config.json"
    if not config.is_file():
        raise WeightsError(
            f"{folder} holds no preset of KerasHub",
            expected="config.json, model.weights.h5 and image_converter.json",
            received=", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "no files",
            fix=f"write a preset to {folder} with backbone.save_to_preset(FOLDER)",
        )
    try:
        found = str(json.loads(config.read_text(encoding="utf-8"))["class_name"])
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{config} cannot be read",
            expected="JSON with a class_name",
            received=str(error),
            fix=f"write the preset in {folder} again with backbone.save_to_preset(FOLDER)",
        ) from error
    refuse_class(str(folder), found)


def refuse_class(preset: str, found: str) -> None:
    """Refuse a preset of another kind of network than those that kpipe unfolds.

    Args:
        preset: its name, for the message.
        found: name of its class in KerasHub.

    Raises:
        WeightsError: it is another one.
    """
    if found not in _FAMILIES.values():
        raise WeightsError(
            f"the preset {preset} holds a {found}",
            expected="a convolutional network: " + ", ".join(_FAMILIES.values()),
            received=found,
            fix=f"choose a convolutional network, not a {found}; docs/backbones.md lists them",
        )


def find_preset(name: str) -> Path | str:
    """Return the folder that holds a preset, or its name if KerasHub must download it."""
    if (folder := preset_folder(name)) is not None:
        return folder
    handle = hub_presets().get(name.removeprefix(HUB_PREFIX), name.removeprefix(HUB_PREFIX))
    home = os.environ.get("KAGGLEHUB_CACHE") or "~/.cache/kagglehub"
    cached = Path(home).expanduser() / "models" / handle.removeprefix("kaggle://")
    files = ("config.json", "model.weights.h5")
    return cached if all((cached / file).is_file() for file in files) else name
