"""A training to be killed: `python -m tests.train.killed FOLDER`. Each epoch takes its time."""

from __future__ import annotations

import sys
import time

import keras

from kpipe.train import fit

from . import tiny
from .test_fitting import PLAN


class Slow(keras.callbacks.Callback):
    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        time.sleep(0.02)


if __name__ == "__main__":
    fit(
        tiny.model(),
        tiny.data,
        steps_per_epoch=tiny.STEPS,
        plan=PLAN,
        validation=tiny.validation(),
        folder=sys.argv[1],
        callbacks=[Slow()],
    )
