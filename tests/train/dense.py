"""A net small enough to be trained in NumPy as well: tanh, linear, mean squared error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np
from tensorflow.python.framework import config

STEPS, BATCH = 8, 4
_RANDOM = np.random.default_rng(28)
INPUTS = _RANDOM.normal(size=(STEPS * BATCH, 4)).astype("float32")
TARGETS = np.tanh(INPUTS @ _RANDOM.normal(size=(4, 3))).astype("float32")


def model(optimizer: keras.optimizers.Optimizer, **compiling) -> keras.Model:
    """The same weights each time, compiled."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(5, activation="tanh", name="hidden")(inputs)
    made = keras.Model(inputs, keras.layers.Dense(3, name="out")(hidden))
    made.compile(optimizer, "mse", **compiling)
    return made


def train(trained: keras.Model, epochs: int, *callbacks, initial_epoch: int = 0) -> dict:
    return trained.fit(
        INPUTS,
        TARGETS,
        batch_size=BATCH,
        epochs=epochs,
        initial_epoch=initial_epoch,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    ).history


def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    while True:
        for step in range(STEPS):
            rows = slice(step * BATCH, (step + 1) * BATCH)
            yield INPUTS[rows], TARGETS[rows]


def gradient(weights: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Return the gradient of the mean squared error, in the order of the model's weights."""
    w1, b1, w2, b2 = weights
    hidden = np.tanh(x @ w1 + b1)
    error = 2 * (hidden @ w2 + b2 - y) / y.size
    below = (error @ w2.T) * (1 - hidden**2)
    return [x.T @ below, below.sum(0), hidden.T @ error, error.sum(0)]


@contextmanager
def free_order() -> Iterator[None]:
    """Disable op determinism, which other tests enable and with which Keras does not use XLA."""
    bound = config.is_op_determinism_enabled()
    config.disable_op_determinism()
    try:
        yield
    finally:
        if bound:
            config.enable_op_determinism()


class Weights(keras.callbacks.Callback):
    """The weights after each step."""

    def on_train_begin(self, logs=None) -> None:
        self.seen: list[list[np.ndarray]] = []

    def on_train_batch_end(self, batch, logs=None) -> None:
        self.seen.append(self.model.get_weights())


class Broken(Exception):
    """Represents any interruption of training."""


class Break(keras.callbacks.Callback):
    """Interrupts training before a batch of an epoch."""

    def __init__(self, epoch: int, batch: int = 0) -> None:
        super().__init__()
        self.at = (epoch, batch)

    def on_epoch_begin(self, epoch, logs=None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, batch, logs=None) -> None:
        if (self._epoch, batch) == self.at:
            raise Broken
