"""A training run that kills itself: `python -m tests.train.killed FOLDER KIND OPERATIONS`.

SIGKILL comes before the n-th operation: no handler, no `finally`, no buffer. Operations are steps
and everything that changes a file. With 0, none comes, and the result is left in the folder.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kpipe.train import fit, fit_phases

from . import tiny
from .trainings import CONFIGS, PHASES

CHANGES = {"write", "fsync", "mkdir", "open", "rename", "replace", "rmdir", "unlink"}


class Fate(keras.callbacks.Callback):
    """Counts down to the end."""

    def __init__(self, operations: int, folder: Path) -> None:
        super().__init__()
        self.left = operations
        self.folder = folder

    def step(self, name: str) -> None:
        self.left -= 1
        if self.left == 0:
            sys.setprofile(None)
            with (self.folder / "killed.txt").open("a") as file:
                file.write(f"{name}\n")
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self.step("step")

    def watch(self, frame: Any, event: str, argument: Any) -> None:
        name = getattr(argument, "__name__", "")
        if event == "c_call" and name in CHANGES:
            self.step(name)


def main() -> None:
    folder, kind, operations = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    model = tiny.model()
    fate = Fate(operations, folder)
    data = tiny.training_data(tiny.data, tiny.validation())
    sys.setprofile(fate.watch)
    if kind == "phases":
        result = fit_phases(
            model, data, PHASES, folder=folder, callbacks=lambda number, layers: [fate]
        )
    else:
        result = fit(model, data, CONFIGS[kind], folder=folder, callbacks=[fate])
    sys.setprofile(None)
    record = {"history": result.history, "best": result.best_epoch, "switch": result.switched_at}
    arrays = {f"{n:03d}": value for n, value in enumerate(tiny.values(model))}
    np.savez(folder / "result.npz", record=json.dumps(record), **arrays)


if __name__ == "__main__":
    main()
