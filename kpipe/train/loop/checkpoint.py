"""What a training needs to go on as if it had never stopped, in one file per epoch.

    folder     := epoch-00000.npz, ... (the last one, and the best one where it is another)
    checkpoint := record (JSON text), model-0000, ... (every variable, seeds included),
                  optimizer-0000, ... (slots, iterations, rate)

A file is written aside, flushed to the disk and renamed; only then are older ones removed. So
whatever moment a training is killed at, the newest complete file is whole.
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

_PATTERN = re.compile(r"epoch-(\d{5,})\.npz")


@dataclass(frozen=True)
class Checkpoint:
    """A training after a finished epoch.

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
        """An optimizer as the training had it, without its state."""
        return keras.optimizers.deserialize(self.record["optimizer"])


def write(folder: Path, epoch: int, record: dict[str, Any], model: keras.Model) -> None:
    """Stores the model and its optimizer after `epoch`, whole or not at all.

    Raises:
        OSError: the disk is full or not writable; earlier checkpoints are left as they are.
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
    """The checkpoint of one epoch.

    Raises:
        TrainingError: there is none, or its file is damaged.
    """
    path = _path(folder, epoch)
    try:
        # Opened here, since np.load leaves a damaged file open.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            names = sorted(file.files)
            record = json.loads(str(file["record"]))
            model = tuple(file[name] for name in names if name.startswith("model-"))
            state = tuple(file[name] for name in names if name.startswith("optimizer-"))
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise TrainingError(
            f"the checkpoint {path} cannot be read",
            expected="a file written by an earlier run of this training",
            received=str(error),
            fix=f"remove the folder {folder} to train anew",
        ) from error
    return Checkpoint(epoch, record, model, state)


def newest(folder: Path) -> Checkpoint | None:
    """The last checkpoint that can be read, or None; a damaged one is warned about."""
    for epoch in reversed(epochs_in(folder)):
        try:
            return read(folder, epoch)
        except TrainingError as error:
            warnings.warn(f"{error.what}; going back to an earlier epoch", stacklevel=2)
    return None


def epochs_in(folder: Path) -> list[int]:
    """The epochs that have a checkpoint, ascending."""
    found = [_PATTERN.fullmatch(path.name) for path in folder.glob("epoch-*.npz")]
    return sorted(int(match[1]) for match in found if match)


def keep_only(folder: Path, epochs: Sequence[int]) -> None:
    """Removes every other checkpoint, and what an interrupted write left."""
    for epoch in set(epochs_in(folder)) - set(epochs):
        _path(folder, epoch).unlink()
    for leftover in folder.glob(".epoch-*"):
        leftover.unlink()


def restore(variables: Sequence[keras.Variable], values: Sequence[np.ndarray], what: str) -> None:
    """Puts stored values into variables of the same number and shapes.

    Raises:
        TrainingError: they do not fit, with the first variable that does not.
    """
    if len(variables) != len(values):
        raise TrainingError(
            f"the checkpoint is of another {what}",
            expected=f"{len(variables)} variables",
            received=f"{len(values)}",
            fix="use another folder for another training",
        )
    wrong = [
        f"{variable.path}: {tuple(variable.shape)} from {value.shape}"
        for variable, value in zip(variables, values, strict=True)
        if tuple(variable.shape) != value.shape
    ]
    if wrong:
        raise TrainingError(
            f"the checkpoint is of another {what}",
            expected="the same shapes",
            received="; ".join(wrong),
            fix="use another folder for another training",
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _path(folder: Path, epoch: int) -> Path:
    return folder / f"epoch-{epoch:05d}.npz"


def _numbered(kind: str, variables: Sequence[keras.Variable]) -> dict[str, np.ndarray]:
    return {f"{kind}-{i:05d}": np.asarray(v.numpy()) for i, v in enumerate(variables)}
