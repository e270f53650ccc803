"""Measure what a teacher costs in a training step, side by side with the student alone.

    python benchmarks/distillation.py [--rounds 5] [--steps 10] [--size 128] [--batch 16]

Student: all layers of MobileNetV2 0.35. Teachers: EfficientNetLite0, EfficientNetLite1, and an
ensemble of three EfficientNetLite0 that share all but their last layers, as `Ensemble` makes them.
Weights and photos are random: the time of a step does not depend on them.

    called   the teacher's model called in each step, as in Keras' own Distiller
    kpipe    `kpipe.train.Distiller`: a `TeacherGraph` (folded normalizations, shared parts once)

Each figure is the processor time of a step, over all threads, divided by that of the student alone
in the same round; the rows alternate and the median of the rounds counts. `steps` is the number of
operations of the teacher, before and after.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kpipe.ensemble import average
from kpipe.errors import TrainingError
from kpipe.keras_graph import read_graph
from kpipe.train import (
    Distiller,
    backbone,
    classifier,
    fused_normalization,
    unfreeze,
)
from kpipe.train.distillation.teacher_graph import TeacherGraph

CLASSES = 10


def network(name: str, size: int, seed: int, **options: Any) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return classifier(backbone(name, image_size=size, weights=None, **options), CLASSES, seed=seed)


def shared_ensemble(size: int) -> keras.Model:
    """Three networks of the same weights but for their last 40 layers, which `unfreeze` trains."""
    members = [network("EfficientNetLite0", size, 0) for _ in range(3)]
    generator = np.random.default_rng(0)
    for member in members:
        unfreeze(member, 40)
        for variable in member.trainable_variables:
            variable.assign(variable + generator.normal(0, 1e-2, variable.shape))
    return average(members)


def trained(size: int, batch: int, how: str, teacher: keras.Model | None) -> Callable[[int], float]:
    """Return a function: number of steps -> processor seconds of a step."""
    student = network("MobileNetV2", size, 1, alpha=0.35)
    generator = np.random.default_rng(0)
    images = generator.uniform(0, 255, (4 * batch, size, size, 3)).astype("float32")
    labels = np.eye(CLASSES, dtype="float32")[generator.integers(0, CLASSES, len(images))]
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch).repeat()
    model = student
    if how in ("called", "kpipe"):
        sample = [images[:batch]]
        model = Distiller(student, teacher, sample, soft_target_weight=1.0, feature_weight=0.0)
        if how == "called":
            call = partial(teacher, training=False)
            model._teacher = lambda images: [call(images)]
    model.compile("adam", "categorical_crossentropy")

    def run(steps: int) -> float:
        with fused_normalization(model):
            start = time.process_time()
            model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)
            return (time.process_time() - start) / steps

    run(2)  # traces the step
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    asked = parser.parse_args()
    size, batch = asked.size, asked.batch
    alone = trained(size, batch, "alone", None)
    print(f"{'teacher':<24} {'steps':>11} {'called':>7} {'kpipe':>7}")
    teachers = {
        "EfficientNetLite0": lambda: network("EfficientNetLite0", size, 0),
        "EfficientNetLite1": lambda: network("EfficientNetLite1", size, 0),
        "3 x EfficientNetLite0": lambda: shared_ensemble(size),
    }
    for name, make in teachers.items():
        teacher = make()
        ways = {how: trained(size, batch, how, teacher) for how in ("called", "kpipe")}
        ratios: dict[str, list[float]] = {how: [] for how in ways}
        for _ in range(asked.rounds):
            base = alone(asked.steps)
            for how, run in ways.items():
                ratios[how].append(run(asked.steps) / base)
        graph = TeacherGraph(teacher)
        medians = " ".join(f"{np.median(values):>7.2f}" for values in ratios.values())
        operations = f"{len(read_graph(teacher, TrainingError).calls)} -> {graph.steps}"
        print(f"{name:<24} {operations:>11} {medians}", flush=True)


if __name__ == "__main__":
    main()
