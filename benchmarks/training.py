"""Measure what training costs and gains, side by side with what Keras users do.

    python benchmarks/training.py CLOTHING --weights FILE [--seeds 3] [--rows recipe fit ...]

CLOTHING holds train/, validation/ and test/ with a folder per class. FILE holds weights of
MobileNetV2 0.35 without its top. 160 px, batches of 32; all times start with the first file read.

    recipe      the transfer-learning guide of keras.io: flips and rotations, the backbone frozen
                for 10 epochs of Adam at 1e-3, then all of it at 1e-5 for 10 more; `cache()` after
                decoding and `prefetch`. Against it: the head alone for 10 epochs on the features of
                3 views, then the last 30 layers for 6. Wall time to the best validation accuracy
                that the recipe reaches, and test accuracy: of its last epoch, as in the guide, and
                of kpipe's epoch with the lowest validation loss.
    fit         `kpipe.train.fit` over `model.fit` of the same model, data and number of epochs
                (two of a third of the photos each), without and with a checkpoint each epoch; the
                last 30 layers train
    begin       the same for two epochs of one step, which measures the time before the first step;
                every layer trains
    fused       `model.fit` with `fused_normalization` over `model.fit`; every layer trains
    checkpoints the time of a checkpoint over that of an epoch
    features    an epoch of the head on features over one through the frozen network, without
                augmentation

Training runs of `recipe` alternate, seed by seed; only the last line of each uses the test split.
`fit` and `features` alternate too; the median of several rounds counts. The settings of kpipe were
chosen on validation with seed 100.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kpipe.data import (
    Augmenter,
    Manifest,
    TrainingOptions,
    dataset,
    decode,
    from_folder,
    split,
    steps,
)
from kpipe.train import (
    FeatureConfig,
    Phase,
    TrainingConfig,
    TrainingData,
    backbone,
    classifier,
    extract_features,
    fit_phases,
    fused_normalization,
    split_frozen,
    unfreeze,
)
from kpipe.train import fit as kpipe_fit
from kpipe.train.loop import checkpoint

SIZE, BATCH = 160, 32
Row = dict[str, Any]


class Clock(keras.callbacks.Callback):
    """Records the seconds since its creation and the validation accuracy after each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.start = time.perf_counter()
        self.epochs: list[tuple[float, float]] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        seconds = time.perf_counter() - self.start
        self.epochs.append((seconds, (logs or {})["val_accuracy"]))

    def reached(self, accuracy: float) -> float:
        """Return the seconds to the end of the first epoch with that accuracy."""
        return next((at for at, value in self.epochs if value >= accuracy), float("nan"))


def by_recipe(folder: Path, weights: str, seed: int) -> tuple[Clock, float]:
    """Train as the guide does."""
    keras.utils.set_random_seed(seed)
    clock = Clock()

    def photos(split: str, **options: Any) -> tf.data.Dataset:
        return keras.utils.image_dataset_from_directory(
            folder / split, image_size=(SIZE, SIZE), batch_size=BATCH, verbose=False, **options
        )

    train = photos("train", seed=seed).cache().prefetch(tf.data.AUTOTUNE)
    validation = photos("validation", shuffle=False).cache().prefetch(tf.data.AUTOTUNE)
    test = photos("test", shuffle=False)
    base = keras.applications.MobileNetV2(
        (SIZE, SIZE, 3), alpha=0.35, include_top=False, weights=weights
    )
    base.trainable = False
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.RandomFlip("horizontal")(inputs)
    x = keras.layers.RandomRotation(0.1)(x)
    x = base(keras.layers.Rescaling(1 / 127.5, -1)(x), training=False)
    x = keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x))
    for trainable, rate in ((False, 1e-3), (True, 1e-5)):
        base.trainable = trainable
        model.compile(
            keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        model.fit(
            train,
            epochs=10,
            validation_data=validation,
            callbacks=[clock],
            verbose=0,
            shuffle=False,
        )
    return clock, model.evaluate(test, verbose=0)[1]


def by_phases(folder: Path, weights: str, seed: int) -> tuple[Clock, float]:
    """Train with kpipe."""
    keras.utils.set_random_seed(seed)
    clock = Clock()
    manifest = split(from_folder(folder))
    with tempfile.TemporaryDirectory() as scratch:
        images = decode(manifest, SIZE, Path(scratch) / "images")
        model = network(manifest, weights, seed)
        augmenter = Augmenter(flip="horizontal", rotate=0.05, crop=0.8)
        fit_phases(
            model,
            TrainingData(
                batches(manifest, images, seed, augmenter),
                steps(manifest, "train", BATCH),
                dataset(manifest, "validation", images=images, batch_size=64),
            ),
            [
                Phase(
                    TrainingConfig(10, learning_rate=3e-3, schedule="cosine"),
                    0,
                    FeatureConfig(3, seed),
                ),
                Phase(TrainingConfig(6, learning_rate=1e-3, schedule="cosine"), 30),
            ],
            folder=Path(scratch) / "training",
            callbacks=lambda number, layers: [clock],
        )
        clock.epochs.append((time.perf_counter() - clock.start, clock.epochs[-1][1]))
        test = dataset(manifest, "test", images=images, batch_size=64)
        return clock, model.evaluate(test, verbose=0)[1]


def network(manifest: Manifest, weights: str, seed: int) -> keras.Model:
    base = backbone("MobileNetV2", alpha=0.35, image_size=SIZE, weights=weights)
    return classifier(base, len(manifest.classes), seed=seed)


def batches(
    manifest: Manifest, images: np.ndarray, seed: int, augmenter: Augmenter | None
) -> Callable[[int], tf.data.Dataset]:
    def data(epoch: int) -> tf.data.Dataset:
        options = TrainingOptions(seed=seed, augmenter=augmenter, first_epoch=epoch)
        return dataset(manifest, "train", images=images, batch_size=BATCH, training=options)

    return data


def recipe(asked: argparse.Namespace) -> None:
    rows: list[Row] = []
    if asked.results.exists():
        rows = json.loads(asked.results.read_text())
    for seed in range(len(rows), asked.seeds):
        theirs, their_test = by_recipe(asked.folder, asked.weights, seed)
        ours, our_test = by_phases(asked.folder, asked.weights, seed)
        best = max(value for _, value in theirs.epochs)
        rows.append(
            {
                "seed": seed,
                "best": best,
                "reached": [theirs.reached(best), ours.reached(best)],
                "whole": [theirs.epochs[-1][0], ours.epochs[-1][0]],
                "our best": max(value for _, value in ours.epochs),
                "test": [their_test, our_test],
            }
        )
        asked.results.write_text(json.dumps(rows, indent=1))
        print(rows[-1], flush=True)
    print(
        "\n| seed | best validation accuracy of the recipe | seconds to reach it: recipe, kpipe |"
        " ratio | whole run, s | test accuracy |\n|---|---|---|---|---|---|"
    )
    for row in rows:
        a, b = row["reached"]
        print(
            f"| {row['seed']} | {row['best']:.1%} | {a:.0f}, {b:.0f} | {a / b:.1f} |"
            f" {row['whole'][0]:.0f}, {row['whole'][1]:.0f} |"
            f" {row['test'][0]:.1%}, {row['test'][1]:.1%} |"
        )
    gain = np.mean([row["test"][1] - row["test"][0] for row in rows])
    print(f"\ntest accuracy, kpipe minus recipe, mean: {100 * gain:+.1f} points")


def measure(name: str, sides: Mapping[str, Callable[[], Any]], rounds: int, target: str) -> None:
    """Print the wall time and processor time of each side over those of the first."""
    taken: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    for work in sides.values():
        work()  # traces, and loads files into memory
    for number in range(rounds):
        for side in list(sides)[:: 1 if number % 2 else -1]:
            start = time.perf_counter(), time.process_time()
            sides[side]()
            taken[side].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    first, *others = (np.array(values).T for values in taken.values())
    for side, values in zip(list(sides)[1:], others, strict=True):
        ratios, processor_ratios = values / first
        print(
            f"| {name}: {side} / {next(iter(sides))} | {np.median(ratios):.3f} |"
            f" {ratios.min():.3f} to {ratios.max():.3f} | {np.median(processor_ratios):.3f} |"
            f" {target} | {np.median(values[0]):.2f} and {np.median(first[0]):.2f} s |",
            flush=True,
        )


def prepared(asked: argparse.Namespace, scratch: str) -> tuple[Manifest, np.ndarray, keras.Model]:
    manifest = split(from_folder(asked.folder))
    return manifest, decode(manifest, SIZE, scratch), network(manifest, asked.weights, 0)


def by_keras(model: keras.Model, data: Callable[[int], tf.data.Dataset], each: int) -> None:
    """Train two epochs of that many batches each with Keras' own loop."""
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(data(0), epochs=2, steps_per_epoch=each, verbose=0, shuffle=False)


def fit(asked: argparse.Namespace) -> None:
    """Compare Keras' loop, `fit`, and `fit` with checkpoints on the same epochs."""
    with tempfile.TemporaryDirectory() as scratch:
        manifest, images, model = prepared(asked, scratch)
        unfreeze(model, 30)
        # A third of an epoch, so that work done once per epoch weighs three times as much.
        data, each = batches(manifest, images, 0, None), steps(manifest, "train", BATCH) // 3
        config, number = TrainingConfig(2), iter(range(1000))

        bare = partial(by_keras, model, data, each)

        def ours(keep: bool) -> None:
            folder = Path(scratch) / str(next(number)) if keep else None
            kpipe_fit(model, TrainingData(data, each), config, folder=folder)

        sides = {
            "model.fit": bare,
            "fit": partial(ours, False),
            "fit with checkpoints": partial(ours, True),
        }
        measure("2 short epochs", sides, asked.rounds, "1.03; checkpoints 1.02 of fit")


def begin(asked: argparse.Namespace) -> None:
    """Compare two steps of Keras' loop and of `fit`: how soon each starts."""
    with tempfile.TemporaryDirectory() as scratch:
        manifest, images, model = prepared(asked, scratch)
        unfreeze(model)
        data = batches(manifest, images, 0, None)
        sides: dict[str, Callable[[], Any]] = {
            "model.fit": partial(by_keras, model, data, 1),
            "fit": partial(kpipe_fit, model, TrainingData(data, 1), TrainingConfig(2)),
        }
        measure("2 steps", sides, asked.rounds, "below 1")


def fused(asked: argparse.Namespace) -> None:
    """Compare normalizations of a dozen operations each with fused ones on the same epochs."""
    with tempfile.TemporaryDirectory() as scratch:
        manifest, images, model = prepared(asked, scratch)
        unfreeze(model)
        data, each = batches(manifest, images, 0, None), steps(manifest, "train", BATCH) // 3

        bare = partial(by_keras, model, data, each)

        def faster() -> None:
            with fused_normalization(model):
                bare()

        measure("2 short epochs", {"model.fit": bare, "fused": faster}, asked.rounds, "below 1")


def checkpoints(asked: argparse.Namespace) -> None:
    """Print the time of a checkpoint over that of an epoch, each timed alone.

    The difference between two fits would be noise.
    """
    with tempfile.TemporaryDirectory() as scratch:
        manifest, images, model = prepared(asked, scratch)
        unfreeze(model, 30)
        epochs: list[float] = []

        class Epochs(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
                self.start = time.perf_counter()

            def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
                epochs.append(time.perf_counter() - self.start)

        kpipe_fit(
            model,
            TrainingData(batches(manifest, images, 0, None), steps(manifest, "train", BATCH)),
            TrainingConfig(3),
            callbacks=[Epochs()],
        )
        folder, writes = Path(scratch) / "checkpoints", []
        for epoch in range(20):
            start = time.perf_counter()
            checkpoint.write(folder, epoch, {}, model)
            checkpoint.keep_only(folder, [epoch])
            writes.append(time.perf_counter() - start)
        each, whole = float(np.median(writes)), float(np.median(epochs[1:]))
        size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
        print(
            f"| a checkpoint ({size:.1f} MB) / an epoch | {each / whole:.4f} |"
            f" {min(writes) / whole:.4f} to {max(writes) / whole:.4f} | at most 0.02 |"
            f" {each:.3f} and {whole:.2f} s |",
            flush=True,
        )


def features(asked: argparse.Namespace) -> None:
    """Compare an epoch of the head through the frozen network and on features."""
    with tempfile.TemporaryDirectory() as scratch:
        manifest, images, model = prepared(asked, scratch)
        unfreeze(model, 0)
        data, each = batches(manifest, images, 0, None), steps(manifest, "train", BATCH)
        stem, tail = split_frozen(model)
        folder = Path(scratch) / "features"
        kept = extract_features(stem, TrainingData(data, each), FeatureConfig(1), folder)
        sides: dict[str, Callable[[], Any]] = {}
        for name, trained, source in (
            ("features", tail, kept.training),
            ("frozen network", model, data),
        ):
            trained.compile("adam", "sparse_categorical_crossentropy")
            sides[name] = partial(
                trained.fit, source(0), steps_per_epoch=each, verbose=0, shuffle=False
            )
        measure("an epoch of the head", sides, asked.rounds, "at least 20")


ROWS = {
    "recipe": recipe,
    "fit": fit,
    "begin": begin,
    "fused": fused,
    "checkpoints": checkpoints,
    "features": features,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--results", type=Path, default=Path("training.json"))
    asked = parser.parse_args()
    for row in asked.rows:
        ROWS[row](asked)


if __name__ == "__main__":
    main()
