"""Compare training steps with and without oneDNN, in turns.

    python benchmarks/onednn.py [--rounds 3] [--cases NAME ...]

Each round starts one process with TF_ENABLE_ONEDNN_OPTS=0 and one with 1, since TensorFlow reads
the variable once; every second round in reverse order. A process trains each network of the table
on one random batch, with the normalization of `kpipe.train.fit`, and reports the median step.
Nothing is read from disk. Where TensorFlow turns oneDNN on by itself, kpipe changes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np

STEPS, WARM_UP, BATCH = 15, 4, 32


def training(name: str, size: int, last: int | None, **options: float) -> float:
    """Return the median seconds of a training step of a network's last layers."""
    import keras

    from kpipe.train import backbone, classifier, fused_normalization, unfreeze

    keras.utils.set_random_seed(0)
    model = classifier(backbone(name, image_size=size, weights=None, **options), 10)
    unfreeze(model, last)
    with fused_normalization(model):
        return steps(model, np.random.default_rng(0).uniform(0, 255, (BATCH, size, size, 3)))


def head() -> float:
    """Return the median seconds of a training step of a dense layer on features."""
    import keras

    model = keras.Sequential([keras.Input((1280,)), keras.layers.Dense(10, "softmax")])
    return steps(model, np.random.default_rng(0).uniform(0, 1, (BATCH, 1280)))


def steps(model, inputs: np.ndarray) -> float:
    import keras
    import tensorflow as tf

    taken: list[float] = []

    class Clock(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
            self.start = time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            taken.append(time.perf_counter() - self.start)

    model.compile("adam", "sparse_categorical_crossentropy")
    batch = tf.data.Dataset.from_tensors((inputs.astype("float32"), np.arange(BATCH) % 10))
    model.fit(batch.repeat(), steps_per_epoch=STEPS, verbose=0, callbacks=[Clock()])
    return float(np.median(taken[WARM_UP:]))


def inference(name: str, size: int, **options: float) -> float:
    """Return the median seconds of a batch through a frozen network."""
    import tensorflow as tf

    from kpipe.train import backbone

    model = backbone(name, image_size=size, weights=None, **options)
    run = tf.function(partial(model, training=False))
    images = tf.random.uniform((BATCH, size, size, 3), 0, 255)
    taken = []
    for _ in range(STEPS):
        start = time.perf_counter()
        run(images)
        taken.append(time.perf_counter() - start)
    return float(np.median(taken[WARM_UP:]))


CASES: dict[str, Callable[[], float]] = {
    "MobileNetV2 0.35, 160 px, all layers": partial(training, "MobileNetV2", 160, None, alpha=0.35),
    "MobileNetV2 0.35, 160 px, last 30": partial(training, "MobileNetV2", 160, 30, alpha=0.35),
    "EfficientNetLite0, 128 px, all layers": partial(training, "EfficientNetLite0", 128, None),
    "EfficientNetLite0, 128 px, last 40": partial(training, "EfficientNetLite0", 128, 40),
    "MobileNetV3Small, 160 px, all layers": partial(training, "MobileNetV3Small", 160, None),
    "ResNet50, 96 px, last 30": partial(training, "ResNet50", 96, 30),
    "a head on features": head,
    "EfficientNetLite0, 128 px, inference": partial(inference, "EfficientNetLite0", 128),
}


def child(chosen: str, cases: list[str]) -> dict[str, float]:
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": chosen, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, __file__, "--child", "--cases", *cases]
    outcome = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    measured: dict[str, float] = json.loads(outcome.stdout.splitlines()[-1])
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps({name: CASES[name]() for name in asked.cases}))
        return
    rounds = []
    for number in range(asked.rounds):
        turn = {
            chosen: child(chosen, asked.cases) for chosen in ("01" if number % 2 == 0 else "10")
        }
        rounds.append(turn)
        print(json.dumps(turn), file=sys.stderr, flush=True)
    print("| one step of 32 photos | without / with oneDNN | range | without, ms | with, ms |")
    print("|---|---|---|---|---|")
    for name in asked.cases:
        off, on = (np.array([turn[chosen][name] for turn in rounds]) for chosen in "01")
        ratios = off / on
        print(
            f"| {name} | {np.median(ratios):.2f} | {ratios.min():.2f} to {ratios.max():.2f} |"
            f" {1000 * np.median(off):.0f} | {1000 * np.median(on):.0f} |"
        )


if __name__ == "__main__":
    main()
