"""Checkpoint files, from which training resumes as if it had never stopped.

    folder     := epoch-00000.npz, ... (the last epoch and the best epoch)
    checkpoint := record (JSON text), model-00000, ... (every variable, seeds included),
                  optimizer-00000, ... (slots, iterations, learning rate)

A file is written under a temporary name, flushed to the disk and renamed before older ones are
removed. So the newest file is complete whenever a training run is killed.
"""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kpipe.atomic import replacing
from kpipe.errors import TrainingError

__all__ = ["Checkpoint", "epochs_in", "keep_only", "newest", "read", "restore", "store", "write"]

# What NumPy and zipfile raise for damaged bytes, checksums and flags among them.
_DAMAGE = (OSError, EOFError, KeyError, ValueError, RuntimeError, MemoryError, zipfile.BadZipFile)
_PATTERN = re.compile(r"epoch-(\d{5,})\.npz")


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training run after an epoch.

    Args:
        epoch: the finished epoch; the first is 0.
        record: everything that is not an array, in JSON's types; "optimizer" is its configuration.
        model: the model's variables, in its order.
        optimizer: the optimizer's variables, in its order.
    """

    epoch: int
    record: dict[str, Any]
    model: tuple[np.ndarray, ...]
    optimizer: tuple[np.ndarray, ...]

    def new_optimizer(self) -> keras.optimizers.Optimizer:
        """Return the optimizer of the training run, without its state."""
        return keras.optimizers.deserialize(self.record["optimizer"])


def write(folder: Path, epoch: int, record: dict[str, Any], model: keras.Model) -> None:
    """Write the checkpoint of `epoch` atomically.

    Raises:
        OSError: the disk is full or not writable; earlier checkpoints do not change.
    """
    arrays = {
        **_numbered("model", model.variables),
        **_numbered("optimizer", model.optimizer.variables),
        "record": np.array(
            json.dumps({**record, "optimizer": keras.optimizers.serialize(model.optimizer)})
        ),
    }
    store(_path(folder, epoch), arrays)


def store(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes one `.npz` file, whole or not at all.

    Raises:
        OSError: the disk is full or not writable; an earlier file is left as it is.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read(folder: Path, epoch: int) -> Checkpoint:
    """Read the checkpoint of one epoch.

    Raises:
        TrainingError: its file is missing or damaged.
    """
    path = _path(folder, epoch)
    try:
        # Open the file here, since np.load leaves a damaged file open.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            record = json.loads(str(file["record"]))
            model, state = (_in_order(file, kind) for kind in ("model", "optimizer"))
            if len(file.files) != 1 + len(model) + len(state):
                raise ValueError(f"unknown names among {', '.join(file.files)}")
    except _DAMAGE as error:
        raise TrainingError(
            f"the checkpoint {path} cannot be read",
            expected="a file written by an earlier run of this training",
            received=str(error),
            fix=f"remove the folder {folder} to train from the start",
        ) from error
    return Checkpoint(epoch, record, model, state)


def newest(folder: Path) -> Checkpoint | None:
    """Read the last readable checkpoint, or return None; warn about damaged ones."""
    for epoch in reversed(epochs_in(folder)):
        try:
            return read(folder, epoch)
        except TrainingError as error:
            warnings.warn(f"{error.what}; resuming from an earlier epoch", stacklevel=2)
    return None


def epochs_in(folder: Path) -> list[int]:
    """Return the epochs that have a checkpoint, in ascending order."""
    found = [_PATTERN.fullmatch(path.name) for path in folder.glob("epoch-*.npz")]
    return sorted(int(match[1]) for match in found if match)


def keep_only(folder: Path, epochs: Sequence[int]) -> None:
    """Remove all other checkpoints and the temporary files of interrupted writes."""
    for epoch in set(epochs_in(folder)) - set(epochs):
        _path(folder, epoch).unlink()
    for leftover in folder.glob(".epoch-*"):
        leftover.unlink()


def restore(variables: Sequence[keras.Variable], values: Sequence[np.ndarray], what: str) -> None:
    """Assign stored values to variables of the same number and shapes.

    Raises:
        TrainingError: they do not fit; the error lists the variables that differ.
    """
    wrong = [
        f"{variable.path}: {tuple(variable.shape)} from {value.shape}"
        for variable, value in zip(variables, values, strict=False)
        if tuple(variable.shape) != value.shape
    ]
    if wrong or len(variables) != len(values):
        raise TrainingError(
            f"the checkpoint belongs to another {what}",
            expected=f"{len(variables)} variables of the same shapes",
            received="; ".join([f"{len(values)} variables", *wrong]),
            fix="use another folder for another training",
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _path(folder: Path, epoch: int) -> Path:
    return folder / f"epoch-{epoch:05d}.npz"


def _in_order(file: Mapping[str, np.ndarray], kind: str) -> tuple[np.ndarray, ...]:
    count = sum(name.startswith(f"{kind}-") for name in file)
    return tuple(file[f"{kind}-{i:05d}"] for i in range(count))


def _numbered(kind: str, variables: Sequence[keras.Variable]) -> dict[str, np.ndarray]:
    return {f"{kind}-{i:05d}": np.asarray(v.numpy()) for i, v in enumerate(variables)}
