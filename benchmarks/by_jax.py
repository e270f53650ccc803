"""Trains a compiled model by Keras on JAX, on the accelerator that JAX finds.

    KERAS_BACKEND=jax python benchmarks/by_jax.py BEFORE.keras AFTER.weights.h5 JSON < BATCHES

JSON holds "epochs", "steps" of an epoch, "seed", "teacher" (the file of a model for
`kpipe.train.Distiller`, or null), "sample", batches for that, and "keep_zeros". BATCHES are arrays
in NumPy's format: images (batch, height, width, 3), labels, images, labels, and so on.

Single precision stays single precision: JAX would otherwise multiply in fewer bits on some
accelerators.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import jax
import keras
import numpy as np

import kpipe.train
import kpipe.train.optimizers.schedules  # registers what a compiled model may hold
from kpipe.sparsity import KeepZeros

Batches = Iterator[tuple[np.ndarray, np.ndarray]]


def read(count: int) -> Batches:
    pipe = SimpleNamespace(read=sys.stdin.buffer.read)  # no file: it has no position
    for _ in range(count):
        yield np.lib.format.read_array(pipe), np.lib.format.read_array(pipe)


def main() -> None:
    before, after, asked = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    jax.config.update("jax_default_matmul_precision", "highest")
    keras.utils.set_random_seed(asked["seed"])
    batches = read(asked["epochs"] * asked["steps"])
    model = keras.models.load_model(before)
    trained = model
    if asked["teacher"]:
        sample = list(itertools.islice(batches, asked["sample"]))
        batches = (batch for part in (sample, batches) for batch in part)  # `fit` knows no chain
        teacher = keras.models.load_model(asked["teacher"], compile=False)
        trained = kpipe.train.Distiller(model, teacher, sample)
        # Anew: the loaded one was built for the student alone.
        optimizer = keras.optimizers.serialize(model.optimizer)
        trained.compile(keras.optimizers.deserialize(optimizer), model.loss)
    trained.jit_compile = True  # saved as False by TensorFlow on a processor
    trained.fit(
        batches,
        epochs=asked["epochs"],
        steps_per_epoch=asked["steps"],
        callbacks=[KeepZeros(model)] if asked["keep_zeros"] else [],
        verbose=0,
    )
    model.save_weights(after)


if __name__ == "__main__":
    main()
