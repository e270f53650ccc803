"""Measure what filter removal costs and gains: MobileNetV2 1.0 on clothing, at half its MACs.

    python benchmarks/pruning.py CLOTHING --weights FILE --work FOLDER [--seeds 0 1 2]

CLOTHING holds train/, validation/ and test/ with a folder per class. FILE holds weights of
MobileNetV2 1.0 without its top. 160 px, batches of 16, Adam along cosines, augmented. For each
seed:

    base      the head for 10 epochs on the features of 3 views, then every layer for 12 epochs
    control   base, trained for 15 more epochs
    pruned    base, prune_filters(macs=0.5, criterion="reconstruction") in rounds of 1, 1, 1
              and 12 epochs
    l1        the same with criterion="l1"
    random    the same with criterion="random"
    latency   the same with latency_ms= half of the control's int8 latency
    narrow    the pretrained network, every group of filters cut by the same fraction by L1 norm
              before any training, to as many MACs as `pruned`; then the head for 10 epochs on
              features and every layer for all 27 epochs
    scratch   the same narrow network from random weights, every layer for all 27 epochs

Rows that prune retrain on photos mixed by MixUp, with `base` as teacher (`kpipe.train.Distiller`).
The last epoch of each row counts. Settings were chosen on validation; each row uses the test split
once, at its end. FOLDER keeps finished rows, and none is repeated. The table of latencies is
measured at the end, file by file in turns.

With --jax, `benchmarks/by_jax.py` trains every layer in a process where Keras runs on JAX, on
whatever accelerator JAX finds (`pip install "jax[cuda13]"`): same photos, learning rates and
epochs, different rounding. Removal, accuracy and latency stay with TensorFlow and LiteRT on the
CPU. Several calls that train different rows may share a FOLDER; `base` must exist before they
start.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from filelock import FileLock
from results import add_row, read_rows

from kpipe.data import (
    Augmenter,
    Manifest,
    Mixer,
    TrainingOptions,
    dataset,
    decode,
    from_folder,
    split,
    steps,
)
from kpipe.lite import LiteModel, convert
from kpipe.prune import Selection, count_macs, plan, prune_filters, rank, remove_filters
from kpipe.sparsity import KeepZeros
from kpipe.train import (
    Distiller,
    FeatureConfig,
    Phase,
    TrainingConfig,
    TrainingData,
    adapt_bn_momentum,
    backbone,
    classifier,
    fit_phases,
    fused_normalization,
    optimizer,
    unfreeze,
)

SIZE, BATCH = 160, 16
BASE_EPOCHS, EPOCHS = 12, (1, 1, 1, 12)  # EPOCHS: one number per round
MORE = sum(EPOCHS)
BASE_RATE, RATE = 5e-4, 5e-4
MIX_UP = 0.2  # alpha for the photos of the retraining
SAMPLE = 50  # batches that initialize the Distiller
AUGMENTER = Augmenter(flip="horizontal", rotate=0.05, brightness=0.2, contrast=0.2, crop=0.8)
METHODS = ("control", "pruned", "random", "latency", "narrow", "l1", "scratch")


@dataclass(frozen=True)
class TrainingRun:
    """A training run of every layer.

    Attributes:
        seed: the seed of the order and the augmentation of the photos.
        begun: epochs that earlier runs have trained.
        epochs: epochs of this run.
        rate: the learning rate at the start.
        teacher: the model file of a teacher; photos are mixed then.
        keep_zeros: keep the zeros of kernels.
    """

    seed: int
    begun: int
    epochs: int
    rate: float
    teacher: str | None = None
    keep_zeros: bool = False


@dataclass(frozen=True)
class Work:
    """The photos, and the folder of the results."""

    folder: Path
    manifest: Manifest
    images: np.ndarray
    weights: str
    jax: bool = False

    @classmethod
    def of(cls, photos: Path, folder: Path, weights: str, jax: bool = False) -> Work:
        manifest = split(from_folder(photos))
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "images.lock"):
            if not (folder / "images" / "images.npy").exists():  # another call may read it
                decode(manifest, SIZE, folder / "images")
        images = np.load(folder / "images" / "images.npy", mmap_mode="r")
        return cls(folder, manifest, images, weights, jax)

    @property
    def steps(self) -> int:
        return steps(self.manifest, "train", BATCH)

    def batches(self, seed: int, epoch: int = 0, mixer: Mixer | None = None) -> tf.data.Dataset:
        """Return endless training batches, starting at an epoch."""
        options = TrainingOptions(seed=seed, augmenter=AUGMENTER, first_epoch=epoch, mixer=mixer)
        return dataset(
            self.manifest, "train", images=self.images, batch_size=BATCH, training=options
        )

    def accuracy(self, model: keras.Model, part: str = "validation") -> float:
        photos = dataset(self.manifest, part, images=self.images, batch_size=64)
        found = model.predict(photos, verbose=0).argmax(axis=1)
        return float((found == self.manifest.labels(part)).mean())

    def loss(self, model: keras.Model) -> float:
        """Return the cross-entropy on the validation photos."""
        photos = dataset(self.manifest, "validation", images=self.images, batch_size=64)
        losses = [
            keras.losses.sparse_categorical_crossentropy(y, model(x, training=False))
            for x, y in photos
        ]
        return float(np.mean(np.concatenate(losses)))

    def sample(self, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return a few hundred training photos (batch, height, width, 3) and labels (batch,)."""
        return [(np.asarray(x), np.asarray(y)) for x, y in self.batches(seed).take(20)]

    def train(self, model: keras.Model, run: TrainingRun) -> None:
        """Train a model in place; the last epoch counts."""
        unfreeze(model)
        adapt_bn_momentum(model, self.steps)
        mixer = Mixer(mix_up=MIX_UP) if run.teacher else None
        batches = self.batches(run.seed, run.begun, mixer)
        loss = "categorical_crossentropy" if run.teacher else "sparse_categorical_crossentropy"
        adam = optimizer("adam", run.rate, schedule="cosine", steps=run.epochs * self.steps)
        callbacks = [KeepZeros(model)] if run.keep_zeros else []
        if run.teacher and not self.jax:  # by_jax.py builds it
            model = Distiller(model, load(run.teacher), batches.take(SAMPLE))
        model.compile(adam, loss)
        if self.jax:
            by_jax(model, batches, run, self.steps)
            return
        with fused_normalization(model):
            model.fit(
                batches,
                epochs=run.epochs,
                steps_per_epoch=self.steps,
                callbacks=callbacks,
                shuffle=False,
                verbose=0,
            )


def by_jax(model: keras.Model, batches: tf.data.Dataset, run: TrainingRun, steps: int) -> None:
    """Train in a process that receives batches as they are drawn and returns weights."""
    with TemporaryDirectory() as place:
        before, after = Path(place, "before.keras"), Path(place, "after.weights.h5")
        model.save(before)
        script = Path(__file__).with_name("by_jax.py")
        asked = asdict(run) | {"steps": steps, "sample": SAMPLE}
        with subprocess.Popen(
            [sys.executable, script, before, after, json.dumps(asked)],
            env=os.environ | {"KERAS_BACKEND": "jax"},
            stdin=subprocess.PIPE,
        ) as process:
            pipe = SimpleNamespace(write=process.stdin.write)  # not a file: no position
            with suppress(BrokenPipeError):  # it ended early and printed why
                for batch in batches.take(run.epochs * steps).as_numpy_iterator():
                    for array in batch:
                        np.lib.format.write_array(pipe, array)
        if process.returncode:
            raise SystemExit(f"by_jax.py failed with exit code {process.returncode}")
        model.load_weights(after)


def load(path: str | Path) -> keras.Model:
    return keras.models.load_model(path, compile=False)


def network(work: Work, seed: int, *, pretrained: bool = True) -> keras.Model:
    base = backbone(
        "MobileNetV2", alpha=1.0, image_size=SIZE, weights=work.weights if pretrained else None
    )
    return classifier(base, len(work.manifest.classes), seed=seed)


def train_head(work: Work, model: keras.Model, seed: int) -> None:
    head = Phase(
        TrainingConfig(10, learning_rate=3e-3, schedule="cosine"), 0, FeatureConfig(3, seed)
    )
    batches = partial(work.batches, seed)
    with TemporaryDirectory() as folder:
        fit_phases(model, TrainingData(batches, work.steps), [head], folder=folder)


def base(work: Work, seed: int) -> Path:
    """Return the file of the fine-tuned network that the rows start with; train it once."""
    path = work.folder / f"base-{seed}.keras"
    if not path.exists():
        keras.utils.set_random_seed(seed)
        model = network(work, seed)
        train_head(work, model, seed)
        work.train(model, TrainingRun(seed, 0, BASE_EPOCHS, BASE_RATE))
        model.save(path)
    return path


def control(work: Work, seed: int) -> keras.Model:
    model = load(base(work, seed))
    keras.utils.set_random_seed(seed)
    work.train(model, TrainingRun(seed, BASE_EPOCHS, MORE, RATE))
    return model


def pruned(work: Work, seed: int, criterion: str = "reconstruction", **target: Any) -> keras.Model:
    whole = base(work, seed)

    def finetune(model: keras.Model, number: int) -> None:
        begun = BASE_EPOCHS + sum(EPOCHS[: number - 1])
        work.train(model, TrainingRun(seed, begun, EPOCHS[number - 1], RATE, teacher=str(whole)))

    sample = work.sample(seed)
    result = prune_filters(
        load(whole),
        **(target or {"macs": 0.5}),
        criterion=criterion,
        rounds=len(EPOCHS),
        finetune=finetune,
        evaluate=work.accuracy,
        loss=work.loss,
        calibration=sample,
        selection=Selection(seed=seed, data=sample),
    )
    for row in result.history:
        print(f"    {row.round}: {row.share:.3f} {row.before:.3f} {row.after:.3f}", flush=True)
    return result.model


def by_latency(work: Work, seed: int) -> keras.Model:
    """Prune to half of the control's int8 latency; each model is timed in turns with the control.

    The fast runs count: other load on the machine makes some runs slower and none faster.
    """
    whole = load(work.folder / f"control-{seed}.keras")
    reference = LiteModel(as_int8(whole))

    def fast(times: list[float]) -> float:
        return float(np.percentile(times, 10))

    unit = fast(take_turns({"control": reference})["control"])

    def latency(model: keras.Model) -> float:
        times = take_turns({"control": reference, "model": LiteModel(as_int8(model))})
        return unit * fast(times["model"]) / fast(times["control"])

    return pruned(work, seed, latency_ms=unit / 2, latency=latency)


def narrow(work: Work, seed: int, *, pretrained: bool) -> keras.Model:
    keras.utils.set_random_seed(seed)
    whole = network(work, seed, pretrained=pretrained)
    limit = 0.5 * count_macs(whole)
    groups = [(r.group, np.argsort(r.scores)) for r in rank(whole, "l1").values()]

    def narrower(fraction: float) -> keras.Model:
        request: dict[str, list[int]] = {}
        for group, order in groups:
            kept = max(8, 8 * round((1 - fraction) * len(order) / 8))
            removed = group.channels[order[: max(0, len(order) - kept)]]
            request.setdefault(group.layer, []).extend(removed.tolist())
        return remove_filters(whole, plan(whole, request))

    fractions = np.linspace(0.2, 0.5, 61)
    model = next(m for m in map(narrower, fractions) if count_macs(m) <= limit)
    if pretrained:
        train_head(work, model, seed)
    work.train(model, TrainingRun(seed, 0, BASE_EPOCHS + MORE, BASE_RATE))
    return model


ROWS: dict[str, Callable[[Work, int], keras.Model]] = {
    "control": control,
    "pruned": pruned,
    "l1": partial(pruned, criterion="l1"),
    "random": partial(pruned, criterion="random"),
    "latency": by_latency,
    "narrow": partial(narrow, pretrained=True),
    "scratch": partial(narrow, pretrained=False),
}


def as_int8(model: keras.Model) -> bytes:
    """Convert to int8 with random calibration images, on which speed does not depend."""
    pixels = np.random.default_rng(0).uniform(0, 255, (2, SIZE, SIZE, 3)).astype("float32")
    return convert(model, "int8", [pixels])


def take_turns(files: dict[str, LiteModel], rounds: int = 60) -> dict[str, list[float]]:
    """Return milliseconds of single runs: 5 per file and turn, after a turn to warm up."""
    times: dict[str, list[float]] = {name: [] for name in files}
    pixels = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3))
    for turn in range(rounds + 1):
        for name, model in files.items():
            image = pixels.astype(model.input_dtype)
            for _ in range(5):
                start = time.perf_counter()
                model.invoke(image)
                if turn:
                    times[name].append(1e3 * (time.perf_counter() - start))
    return times


def train_rows(work: Work, seeds: Iterable[int], methods: Iterable[str]) -> None:
    results = work.folder / "rows.jsonl"
    done = {(row["seed"], row["method"]) for row in read_rows(results)}
    for seed in seeds:
        for method in methods:
            if (seed, method) in done:
                continue
            start = time.perf_counter()
            model = ROWS[method](work, seed)
            model.save(work.folder / f"{method}-{seed}.keras")
            row = {
                "seed": seed,
                "method": method,
                "macs": count_macs(model),
                "params": model.count_params(),
                "validation": work.accuracy(model),
                "test": work.accuracy(model, "test"),
                "seconds": round(time.perf_counter() - start),
            }
            print(row, flush=True)
            add_row(results, row)


def report(work: Work, rounds: int) -> None:
    """Print accuracy beside the control's, and latency over the control's."""
    rows = read_rows(work.folder / "rows.jsonl")
    found = {(row["seed"], row["method"]): row for row in rows}
    seeds = sorted({row["seed"] for row in rows if row["method"] == "control"})
    print("| row | seeds | M MACs | test accuracy | over the control's, points | validation |")
    print("|---|---|---|---|---|---|")
    for method in METHODS:
        mine = [found[seed, method] for seed in seeds if (seed, method) in found]
        if not mine:
            continue
        gains = [100 * (row["test"] - found[row["seed"], "control"]["test"]) for row in mine]
        print(
            f"| {method} | {len(mine)} | {np.mean([row['macs'] for row in mine]) / 1e6:.1f} |"
            f" {np.mean([row['test'] for row in mine]):.1%}"
            f" ({', '.join(format(row['test'], '.1%') for row in mine)}) |"
            f" {np.mean(gains):+.1f} ({min(gains):+.1f} to {max(gains):+.1f}) |"
            f" {np.mean([row['validation'] for row in mine]):.1%} |"
        )
    print("\n| row | seed | latency over the control's: float32 | int8 |\n|---|---|---|---|")
    for method in ("pruned", "latency"):
        for seed in seeds:
            if (seed, method) not in found:
                continue
            ratios = []
            for change in (convert, as_int8):
                models = {
                    name: LiteModel(change(load(work.folder / f"{name}-{seed}.keras")))
                    for name in ("control", method)
                }
                times = take_turns(models, rounds)
                ratios.append(np.median(times[method]) / np.median(times["control"]))
            print(f"| {method} | {seed} | {ratios[0]:.2f} | {ratios[1]:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS)
    parser.add_argument("--rounds", type=int, default=200, help="rounds for the table of latencies")
    parser.add_argument("--jax", action="store_true", help="train with Keras on JAX")
    asked = parser.parse_args()
    work = Work.of(asked.folder, asked.work, asked.weights, asked.jax)
    train_rows(work, asked.seeds, asked.methods)
    report(work, asked.rounds)


if __name__ == "__main__":
    main()
