"""Compare training steps and inference with normalizations folded into convolutions, and without.

    python benchmarks/folding.py [--rounds 8] [--cases NAME ...]

Each network trains all layers but its normalizations on one random batch of 32 photos, and predicts
another batch, by Keras and with folding in turns. Random weights; nothing is read from disk. Times
are processor seconds, which other programs on the machine change less than seconds of a clock.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kpipe.train import backbone, classifier, folded_inference, fused_normalization, unfreeze

BATCH, STEPS, WARM_UP = 32, 2, 2
CASES: dict[str, tuple[str, int, dict[str, float]]] = {
    "MobileNetV2 0.35, 96 px": ("MobileNetV2", 96, {"alpha": 0.35}),
    "MobileNetV2 0.35, 160 px": ("MobileNetV2", 160, {"alpha": 0.35}),
    "EfficientNetLite0, 128 px": ("EfficientNetLite0", 128, {}),
    "MobileNetV3Small, 160 px": ("MobileNetV3Small", 160, {}),
    "ResNet50V2, 96 px": ("ResNet50V2", 96, {}),
}


def trained(name: str, size: int, options: dict[str, float], folded: bool) -> Callable[[], Any]:
    """Return a training step of all layers but the normalizations."""
    keras.utils.set_random_seed(0)
    model = classifier(backbone(name, image_size=size, weights=None, **options), 10)
    unfreeze(model, None, freeze_norm=True)
    model.compile("adam", "sparse_categorical_crossentropy")
    x, y = photos(size), np.arange(BATCH) % 10
    within: AbstractContextManager[Any] = fused_normalization(model) if folded else nullcontext()
    with within:
        model.train_on_batch(x, y)  # traces the step
    return lambda: model.train_on_batch(x, y)


def predicted(name: str, size: int, options: dict[str, float], folded: bool) -> Callable[[], Any]:
    """Return a prediction of a batch."""
    model = backbone(name, image_size=size, weights=None, **options)
    by_keras = tf.function(lambda images: model(images, training=False))
    function, images = folded_inference(model) if folded else by_keras, tf.constant(photos(size))
    return lambda: function(images)


def photos(size: int) -> np.ndarray:
    shape = (BATCH, size, size, 3)
    return np.random.default_rng(0).uniform(0, 255, shape).astype("float32")


def in_turns(sides: list[Callable[[], Any]], rounds: int) -> list[list[float]]:
    """Return the median seconds of each side in each round."""
    found: list[list[float]] = []
    for number in range(rounds + WARM_UP):
        medians = []
        for side in sides:
            times = []
            for _ in range(STEPS):
                start = time.process_time()
                side()
                times.append(time.process_time() - start)
            medians.append(float(np.median(times)))
        if number >= WARM_UP:
            found.append(medians)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    asked = parser.parse_args()
    print("| 32 photos | Keras / folded | rounds | Keras, ms | folded, ms |")
    print("|---|---|---|---|---|")
    for title in asked.cases:
        for what, make in (("training step", trained), ("inference", predicted)):
            sides = [make(*CASES[title], folded) for folded in (False, True)]
            rows = np.array(in_turns(sides, asked.rounds))
            ratios, (plain, folded) = rows[:, 0] / rows[:, 1], np.median(rows, axis=0) * 1e3
            print(
                f"| {title}, {what} | {np.median(ratios):.2f} | {ratios.min():.2f} to "
                f"{ratios.max():.2f} | {plain:.0f} | {folded:.0f} |",
                flush=True,
            )
            keras.backend.clear_session()


if __name__ == "__main__":
    main()
