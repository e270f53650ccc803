"""Keras models between stages.

    model folder := model.keras     the network, from raw pixels to probabilities
                    model.json      {"title": its name in tables, "recipe": its training}
                    history.json    [{"title", "history", "switched_at", "best_epoch"}, ...]
                    training*/      checkpoints, until training ends

A stage resets Keras first and ends with files whose bytes depend on the weights alone, so that its
result does not depend on the stages that ran before it in the same process.
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

__all__ = [
    "is_saved",
    "join_histories",
    "load_model",
    "read_metadata",
    "reset_keras",
    "save_keras",
    "save_model",
]

_EPOCH_OF_ZIP = (1980, 1, 1, 0, 0, 0)


def reset_keras(seed: int) -> None:
    """Put Keras and TensorFlow into the state that every stage starts from."""
    import keras
    import tensorflow as tf

    # TensorFlow warns of retracing, which is intended here: each stage has a new model.
    tf.get_logger().setLevel("ERROR")
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def save_model(model: keras.Model, folder: Path, **metadata: Any) -> None:
    """Write a model folder and remove its checkpoints; equal weights give equal bytes."""
    save_keras(model, folder / "model.keras")
    write_text(folder / "model.json", json.dumps(metadata, indent=1))
    _remove_checkpoints(folder)


def save_keras(model: keras.Model, path: Path) -> None:
    """Write a `.keras` file; equal weights give equal bytes."""
    with replacing(path) as temporary:
        model.save(temporary)
        _make_reproducible(temporary)


def is_saved(folder: Path) -> bool:
    """Return whether `save_model` has written this folder, now or before an interruption."""
    if not (folder / "model.json").exists():
        return False
    _remove_checkpoints(folder)
    return True


def join_histories(folder: Path, runs: Iterable[Path]) -> None:
    """Write the `history.json` of a folder from those of the training runs in it."""
    rows = [row for run in runs for row in json.loads((run / "history.json").read_text())]
    (folder / "history.json").write_text(json.dumps(rows), encoding="utf-8")


def _remove_checkpoints(folder: Path) -> None:
    for checkpoints in folder.glob("training*"):
        shutil.rmtree(checkpoints)


def load_model(folder: Path) -> keras.Model:
    """Load the model of a model folder, not compiled; only layers of Keras itself are allowed."""
    import keras

    return keras.models.load_model(folder / "model.keras", compile=False, safe_mode=True)


def read_metadata(folder: Path) -> dict[str, Any]:
    """Return the metadata that `save_model` was given."""
    return json.loads((folder / "model.json").read_text(encoding="utf-8"))


def _make_reproducible(path: Path) -> None:
    """Rewrite a `.keras` archive without its date and without memory addresses."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in sorted(archive.namelist())}
    metadata = json.loads(parts["metadata.json"])
    metadata.pop("date_saved", None)
    parts["metadata.json"] = json.dumps(metadata, sort_keys=True).encode()
    parts["config.json"] = _number_shared_objects(parts["config.json"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH_OF_ZIP), content)


def _number_shared_objects(config: bytes) -> bytes:
    """Replace the memory addresses that mark shared objects by numbers in order of appearance."""
    numbers: dict[bytes, int] = {}

    def number(match: re.Match[bytes]) -> bytes:
        return match[1] + str(numbers.setdefault(match[2], len(numbers) + 1)).encode()

    return re.sub(rb'("shared_object_id": )(\d+)', number, config)
