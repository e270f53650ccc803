"""Trains a compiled model by Keras on JAX, on the accelerator that JAX finds.

    KERAS_BACKEND=jax python benchmarks/by_jax.py BEFORE.keras AFTER.weights.h5 JSON < BATCHES

JSON holds "epochs", "steps" of an epoch, "seed", "teacher" (the file of a model whose answers
become a share of each label, or null) and that "share". BATCHES are arrays in NumPy's format:
images (batch, height, width, 3), labels (batch,), images, labels, and so on.

Single precision stays single precision: JAX would otherwise multiply in fewer bits on some
accelerators.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import jax
import keras
import numpy as np

import kpipe.train.schedules  # noqa: F401  # registers what a compiled model may hold

Batches = Iterator[tuple[np.ndarray, np.ndarray]]


def read(count: int) -> Batches:
    pipe = SimpleNamespace(read=sys.stdin.buffer.read)  # no file: it has no position
    for _ in range(count):
        yield np.lib.format.read_array(pipe), np.lib.format.read_array(pipe)


def softened(batches: Batches, teacher: keras.Model, share: float) -> Batches:
    """As `kpipe.train.soft_labels`, which is TensorFlow's."""
    weights = [
        [variable.value for variable in variables]
        for variables in (teacher.trainable_variables, teacher.non_trainable_variables)
    ]
    answers = jax.jit(lambda images: teacher.stateless_call(*weights, images, training=False)[0])
    for images, labels in batches:
        hard = np.eye(teacher.output_shape[-1], dtype="float32")[labels]
        yield images, (1 - share) * hard + share * np.asarray(answers(images))


def main() -> None:
    before, after, asked = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    jax.config.update("jax_default_matmul_precision", "highest")
    keras.utils.set_random_seed(asked["seed"])
    batches = read(asked["epochs"] * asked["steps"])
    if asked["teacher"]:
        teacher = keras.models.load_model(asked["teacher"], compile=False)
        batches = softened(batches, teacher, asked["share"])
    model = keras.models.load_model(before)
    model.jit_compile = True  # saved as False by TensorFlow on a processor
    model.fit(batches, epochs=asked["epochs"], steps_per_epoch=asked["steps"], verbose=0)
    model.save_weights(after)


if __name__ == "__main__":
    main()
