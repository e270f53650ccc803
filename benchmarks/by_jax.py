"""Train a compiled model with Keras on JAX, on the accelerator that JAX finds.

    KERAS_BACKEND=jax python benchmarks/by_jax.py BEFORE.keras AFTER.weights.h5 JSON < BATCHES

JSON holds "epochs", "steps" per epoch, "seed", "teacher" (the model file of the teacher for
`kpipe.train.Distiller`, or null), "sample" (the number of batches that initialize the Distiller)
and "keep_zeros". BATCHES are arrays in NumPy's format: images (batch, height, width, 3), labels,
images, labels, and so on.

Training stays in single precision. By default, JAX multiplies with fewer bits on some accelerators.
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
import kpipe.train.optimizers.schedules  # registers the schedules of a compiled model
from kpipe.sparsity import KeepZeros

Batches = Iterator[tuple[np.ndarray, np.ndarray]]


def read(count: int) -> Batches:
    pipe = SimpleNamespace(read=sys.stdin.buffer.read)  # not a file, since a pipe has no position
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
        batches = (batch for part in (sample, batches) for batch in part)  # a generator for `fit`
        teacher = keras.models.load_model(asked["teacher"], compile=False)
        trained = kpipe.train.Distiller(model, teacher, sample)
        # A new optimizer: the loaded one was built for the student alone.
        optimizer = keras.optimizers.serialize(model.optimizer)
        trained.compile(keras.optimizers.deserialize(optimizer), model.loss)
    trained.jit_compile = True  # TensorFlow saved False, since it ran on a CPU
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
