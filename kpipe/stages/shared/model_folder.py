"""Keras models between stages.

    model folder := model.keras     the network, from raw pixels to probabilities
                    model.json      {"title": its row in the closing table, "recipe": its training}
                    history.json    [{"title", "history", "switched_at", "best_epoch"}, ...]
                    training*/      checkpoints, as long as it is being made

A stage begins with a fresh Keras and ends with files whose bytes depend on the weights alone, so
that it gives the same result whether or not others ran before it in this process.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kpipe.atomic import replacing, write_text

if TYPE_CHECKING:
    import keras

__all__ = ["begin", "is_saved", "join_histories", "load_model", "read_about", "save_model"]

_EPOCH_OF_ZIP = (1980, 1, 1, 0, 0, 0)


def begin(seed: int) -> None:
    """Put Keras and TensorFlow into the state that every stage starts from."""
    import keras
    import tensorflow as tf

    # A new model in each stage is traced anew, which TensorFlow takes for an oversight.
    tf.get_logger().setLevel("ERROR")
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def save_model(model: keras.Model, folder: Path, **about: Any) -> None:
    """Write a model folder, and remove the checkpoints of the training that led to it.

    Equal weights give equal bytes.
    """
    with replacing(folder / "model.keras") as temporary:
        model.save(temporary)
        _without_chance(temporary)
    write_text(folder / "model.json", json.dumps(about, indent=1))
    _remove_checkpoints(folder)


def is_saved(folder: Path) -> bool:
    """Whether `save_model` has written this folder, in this attempt or one that was cut off."""
    if not (folder / "model.json").exists():
        return False
    _remove_checkpoints(folder)
    return True


def join_histories(folder: Path, trainings: Iterable[Path]) -> None:
    """Write the `history.json` of a folder from those of the trainings below it."""
    rows = [row for one in trainings for row in json.loads((one / "history.json").read_text())]
    (folder / "history.json").write_text(json.dumps(rows), encoding="utf-8")


def _remove_checkpoints(folder: Path) -> None:
    for made in folder.glob("training*"):
        shutil.rmtree(made)


def load_model(folder: Path) -> keras.Model:
    """The model of a model folder, not compiled. Only layers that Keras knows are built."""
    import keras

    return keras.models.load_model(folder / "model.keras", compile=False, safe_mode=True)


def read_about(folder: Path) -> dict[str, Any]:
    """What `save_model` was told about the model."""
    about: dict[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    return about


def _without_chance(path: Path) -> None:
    """Rewrite a `.keras` archive without the moment of saving and without memory addresses."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in sorted(archive.namelist())}
    metadata = json.loads(parts["metadata.json"])
    metadata.pop("date_saved", None)
    parts["metadata.json"] = json.dumps(metadata, sort_keys=True).encode()
    parts["config.json"] = _renumbered(parts["config.json"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH_OF_ZIP), content)


def _renumbered(config: bytes) -> bytes:
    """Objects that layers share are marked with their address: number them as they appear."""
    numbers: dict[bytes, int] = {}

    def number(match: re.Match[bytes]) -> bytes:
        return match[1] + str(numbers.setdefault(match[2], len(numbers) + 1)).encode()

    return re.sub(rb'("shared_object_id": )(\d+)', number, config)
