"""Measure what the formats of a file cost and gain: accuracy, size and latency, beside float32.

    python benchmarks/export.py CLOTHING --weights FILE --work FOLDER [--seeds 0 1 2]
                                [--pair DENSE.keras PRUNED.keras] [--larger FOLDER]

CLOTHING holds train/, validation/ and test/ with a folder per class. FILE holds weights of
MobileNetV2 0.35 without its top. 160 px, batches of 16, Adam along cosines, augmented. For each
seed and each of three networks (MobileNetV2 0.35 and EfficientNet-Lite0 pretrained: the head for 10
epochs on the features of 3 views, then every layer for 6 epochs; MobileNetV3Small from random
weights, every layer for 60 epochs):

    float32    the file without quantization, the reference for the other rows
    float16, mixed, int8      converted to that format; int8 with 200 calibration photos, balanced
               over the classes
    unrefined  int8 with ranges from the smallest to the largest value and uncorrected biases
    selective  int8 with the costliest layers in float32, until within 1 point on validation
    aware      2 epochs of quantization-aware training at a constant 1e-5, then int8

and for MobileNetV2 0.35:

    sparse     75 % zeros by TFMOT in 3 epochs, 12 more by Keras that keep them, with the dense
               network as teacher and MixUp of 0.2 (learning rate 5e-4, at last along a cosine),
               then int8
    clustered  32 distinct values per kernel by TFMOT (2 epochs, learning rate 1e-5 along a cosine),
               then int8

Each row uses the test split once. Latencies are medians of ratios, the files in turns, one thread.
`--pair` compares the int8 file of the second model with the float32 file of the first, such as
those of benchmarks/pruning.py. `--larger` takes MobileNetV2 1.0 from the FOLDER of that benchmark:
`base` with 75 % zeros, trained as above for as many more epochs as `control`, both in int8. At the
end follow latencies alone: MobileNetV2 1.0 at 224 px, untrained; stacks of one kind of layer; and
networks whose int8 files have other activations than the model. `--jax` works as in
benchmarks/pruning.py; TFMOT always trains with TensorFlow.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import keras
import numpy as np
from pruning import BASE_EPOCHS, MORE, RATE, SIZE, TrainingRun, Work, load, train_head
from results import add_row, read_rows

from kpipe.keras_internals import layers_within
from kpipe.lite import LiteModel, compare, convert, evaluate, quantize_selectively
from kpipe.lite.export.calibration_images import prepare_calibration_images
from kpipe.lite.export.checks import check_classifier
from kpipe.lite.export.conversion import calibrate
from kpipe.lite.int8.quantizing import quantize_to_int8
from kpipe.sparsity import (
    TrainingSettings,
    cluster_weights,
    prune_magnitude,
    train_quantized,
)
from kpipe.train import backbone, classifier, unfreeze

NETWORKS = ("MobileNetV2 0.35", "EfficientNetLite0", "MobileNetV3Small")
TOLERANCE = 0.01
FINE = 6  # epochs of every layer
SPARSE_EPOCHS = (3, MORE - 3)  # of TFMOT, then of Keras


def cached(path: Path, make: Callable[[], keras.Model]) -> Path:
    """Return the file of a model; build and save the model if the file is missing."""
    if not path.exists():
        make().save(path)
    return path


def trained(work: Work, name: str, seed: int) -> Path:
    """Return the file of a trained network; train it once."""

    def make() -> keras.Model:
        keras.utils.set_random_seed(seed)
        if name == "MobileNetV2 0.35":
            base = backbone("MobileNetV2", alpha=0.35, image_size=SIZE, weights=work.weights)
        elif name == "EfficientNetLite0":
            base = backbone(name, image_size=SIZE)
        else:
            base = backbone(name, image_size=SIZE, weights=None)
        model = classifier(base, len(work.manifest.classes), seed=seed)
        if name == "MobileNetV3Small":
            work.train(model, TrainingRun(seed, 0, 60, 3e-3))
        else:
            train_head(work, model, seed)
            work.train(model, TrainingRun(seed, 0, FINE, RATE))
        return model

    return cached(work.folder / f"{name.replace(' ', '-')}-{seed}.keras", make)


def calibration(work: Work, seed: int) -> Iterator[np.ndarray]:
    """Yield 200 training photos: the first of every class, then the second, and so on."""
    rows, labels = work.manifest.rows("train"), work.manifest.labels("train")
    generator = np.random.default_rng(seed)
    drawn = [generator.permutation(rows[labels == label]) for label in np.unique(labels)]
    turns = [photos[turn] for turn in range(len(rows)) for photos in drawn if turn < len(photos)]
    for row in turns[:200]:
        yield work.images[row]


def correct(work: Work, content: bytes, part: str) -> np.ndarray:
    rows, labels = work.manifest.rows(part), work.manifest.labels(part)
    return evaluate(content, (work.images[rows], labels)).correct


def accuracy(work: Work, content: bytes, part: str) -> float:
    return float(correct(work, content, part).mean())


def unfrozen(path: Path) -> keras.Model:
    model = load(path)
    unfreeze(model)
    return model


def aware(work: Work, dense: Path, seed: int) -> keras.Model:
    return train_quantized(
        unfrozen(dense),
        partial(work.batches, seed),
        epochs=2,
        steps_per_epoch=work.steps,
        settings=TrainingSettings(learning_rate=1e-5, seed=seed),
    )


def sparse(work: Work, dense: Path, seed: int, begun: int = FINE) -> keras.Model:
    """Create 75 % zeros by TFMOT, then train with Keras and the dense network as teacher."""
    ramp, after = SPARSE_EPOCHS
    zeros = prune_magnitude(
        unfrozen(dense),
        lambda epoch: work.batches(seed, begun + epoch),
        sparsity=0.75,
        epochs=ramp,
        steps_per_epoch=work.steps,
        settings=TrainingSettings(learning_rate=RATE, seed=seed),
    )
    work.train(zeros, TrainingRun(seed, begun + ramp, after, RATE, str(dense), keep_zeros=True))
    return zeros


def clustered(work: Work, dense: Path, seed: int) -> keras.Model:
    return cluster_weights(
        unfrozen(dense),
        partial(work.batches, seed),
        clusters=32,
        epochs=2,
        steps_per_epoch=work.steps,
        settings=TrainingSettings(learning_rate=1e-5, learning_rate_schedule="cosine", seed=seed),
    )


TRAINED_FURTHER: dict[str, Callable[[Work, Path, int], keras.Model]] = {
    "aware": aware,
    "sparse": sparse,
    "clustered": clustered,
}
FORMS = ("float32", "float16", "mixed", "int8", "unrefined", "selective", *TRAINED_FURTHER)


def file_of(work: Work, name: str, form: str, seed: int) -> tuple[bytes, str]:
    """Return the file of a row, and a note on it."""
    photos, dense = partial(calibration, work, seed), trained(work, name, seed)
    if form in TRAINED_FURTHER:
        make = partial(TRAINED_FURTHER[form], work, dense, seed)
        path = cached(dense.with_name(f"{form}-{dense.name}"), make)
        return convert(load(path), "int8", photos()), ""
    model = load(dense)
    if form == "selective":
        chosen = quantize_selectively(
            model,
            photos(),
            lambda content: correct(work, content, "validation"),
            tolerance=TOLERANCE,
        )
        return chosen.content, ", ".join(chosen.in_float) or "nothing in float32"
    if form == "int8":
        return convert(model, form, photos()), ""
    if form == "unrefined":
        seen = prepare_calibration_images(photos(), check_classifier(model))
        return quantize_to_int8(calibrate(model, seen)), ""
    return convert(model, None if form == "float32" else form), ""


def measure(work: Work, name: str, seed: int, forms: Iterable[str]) -> None:
    rows = read_rows(work.folder / "rows.jsonl")
    done = {(row["network"], row["form"], row["seed"]) for row in rows}
    if name != NETWORKS[0]:
        forms = [form for form in forms if form not in ("sparse", "clustered")]
    network = load(trained(work, name, seed))
    dense = convert(network)
    images = work.images[work.manifest.rows("test")]
    reference = network.predict(images.astype("float32"), verbose=0)
    for form in forms:
        if (name, form, seed) in done:
            continue
        content, note = file_of(work, name, form, seed)
        about = {"network": name, "form": form, "seed": seed, "note": note}
        add(work, about, dense, content, reference)


def add(
    work: Work, about: dict[str, Any], dense: bytes, content: bytes, reference: np.ndarray
) -> None:
    """Add a row: a file beside the dense float32 file and Keras' test predictions."""
    rows, labels = work.manifest.rows("test"), work.manifest.labels("test")
    first, found = compare([dense, content], runs=300)
    images = work.images[rows]
    against_keras = evaluate(content, (images, labels), reference=reference)
    # Probabilities below half a step of int8 count as half a step.
    both = (
        np.maximum(values, 1 / 512) for values in (reference, LiteModel(content).predict(images))
    )
    divergence = keras.losses.kl_divergence(*both)
    row = about | {
        "test": against_keras.accuracy,
        "validation": accuracy(work, content, "validation"),
        "latency": found.ratio,
        "size": found.size,
        "gzip": found.gzip_size,
        "over_float32": found.size / first.size,
        "memory": found.peak_memory / first.peak_memory,
        "agreement": against_keras.agreement,
        "difference": against_keras.worst_difference,
        "divergence": float(np.mean(divergence)),
    }
    print(row, flush=True)
    add_row(work.folder / "rows.jsonl", row)


def larger(work: Work, folder: Path, seed: int) -> None:
    """Add the dense and the sparse file of a network trained by benchmarks/pruning.py."""
    name = "MobileNetV2 1.0"
    rows = [row for row in read_rows(work.folder / "rows.jsonl") if row["seed"] == seed]
    done = {row["form"] for row in rows if row["network"] == name}
    if "sparse" in done:  # the last row
        return
    control = load(folder / f"control-{seed}.keras")
    base = folder / f"base-{seed}.keras"
    make = partial(sparse, work, base, seed, BASE_EPOCHS)
    zeros = load(cached(work.folder / f"sparse-larger-{seed}.keras", make))
    images = work.images[work.manifest.rows("test")].astype("float32")
    reference, dense = control.predict(images, verbose=0), convert(control)
    photos = partial(calibration, work, seed)
    files = {
        "float32": dense,
        "int8": convert(control, "int8", photos()),
        "sparse": convert(zeros, "int8", photos()),
    }
    for form, content in files.items():
        if form in done:
            continue
        about = {"network": name, "form": form, "seed": seed, "note": ""}
        add(work, about, dense, content, reference)


def report(work: Work) -> None:
    """Print a line for each network and form, the mean over the seeds."""
    rows = read_rows(work.folder / "rows.jsonl")
    print(
        "| network | form | seeds | test accuracy | over float32, points | agreement with Keras |"
        " divergence from Keras | latency over float32 | size over float32 | gzip over int8 |\n"
        + "|---" * 10
        + "|"
    )
    for name, form in dict.fromkeys((row["network"], row["form"]) for row in rows):
        mine = [row for row in rows if (row["network"], row["form"]) == (name, form)]
        others = {(r["seed"], r["form"]): r for r in rows if r["network"] == name}
        gains = [100 * (row["test"] - others[row["seed"], "float32"]["test"]) for row in mine]
        gzip = [row["gzip"] / others[row["seed"], "int8"]["gzip"] for row in mine]
        tests = ", ".join(f"{row['test']:.1%}" for row in mine)
        print(
            f"| {name} | {form} | {len(mine)} | {tests} |"
            f" {np.mean(gains):+.1f} ({min(gains):+.1f} to {max(gains):+.1f}) |"
            f" {min(row['agreement'] for row in mine):.1%}, within"
            f" {max(row['difference'] for row in mine):.0e} |"
            f" {np.mean([row['divergence'] for row in mine]):.4f} |"
            f" {np.mean([row['latency'] for row in mine]):.2f} |"
            f" {np.mean([row['over_float32'] for row in mine]):.2f} | {np.mean(gzip):.2f} |"
        )


def untrained_classifier(name: str, pixels: np.ndarray, **options: Any) -> keras.Model:
    """Build a classifier with random weights and BatchNormalization statistics of the pixels.

    With initial statistics, values shrink from layer to layer, until they leave the range in which
    the delegate accepts an int8 operation.
    """
    model = classifier(backbone(name, image_size=pixels.shape[1], weights=None, **options), 10)
    for layer in layers_within(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(pixels, training=True)
    return model


def untrained(rounds: int) -> None:
    """Print the latency of MobileNetV2 1.0 at 224 px."""
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 224, 224, 3)).astype("float32")
    model = untrained_classifier("MobileNetV2", pixels, alpha=1.0)
    forms = ("float32", "mixed", "int8")
    files = [convert(model), convert(model, "mixed"), convert(model, "int8", [pixels])]
    for form, found in zip(forms, compare(files, runs=rounds), strict=True):
        print(f"MobileNetV2 1.0, 224 px, {form}: latency over float32 {found.ratio:.2f}")


def layers(rounds: int) -> None:
    """Print the int8 latency of 20 layers of one kind on 20 x 20 pixels."""
    kinds: dict[str, Callable[[int], keras.Layer]] = {
        "1 x 1 convolutions": partial(keras.layers.Conv2D, kernel_size=1),
        "depthwise 3 x 3": lambda channels: keras.layers.DepthwiseConv2D(3, padding="same"),
    }
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 20, 20, 3)).astype("float32")
    for kind, layer in kinds.items():
        for channels in (48, 64, 72, 128):
            model = keras.Sequential([keras.Input((20, 20, 3)), keras.layers.Conv2D(channels, 1)])
            for _ in range(20):
                model.add(layer(channels))
                model.add(keras.layers.ReLU())
            model.add(keras.layers.GlobalAveragePooling2D())
            model.add(keras.layers.Dense(3, activation="softmax"))
            _, found = compare([convert(model), convert(model, "int8", [pixels])], runs=rounds)
            print(f"{kind}, {channels} channels, int8: latency over float32 {found.ratio:.2f}")


def activations(rounds: int) -> None:
    """Print the latency of int8 files with the model's activations and with delegable ones."""
    pixels = np.random.default_rng(0).uniform(0, 255, (8, SIZE, SIZE, 3)).astype("float32")
    for name in ("MobileNetV3Small", "MobileNetV3Large", "Xception", "NASNetMobile"):
        model = untrained_classifier(name, pixels)
        with mock.patch("kpipe.lite.export.tracing.delegable_activations", nullcontext):
            plain = convert(model, "int8", [pixels])
        files = [convert(model), plain, convert(model, "int8", [pixels])]
        _, before, after = compare(files, runs=rounds)
        print(
            f"{name}, {SIZE} px, int8: latency over float32 {before.ratio:.2f} in"
            f" {before.partitions} partitions, {after.ratio:.2f} in {after.partitions}"
        )


def first_prediction(work: Work, runs: int = 5) -> None:
    """Print the time to the first prediction of a fresh process: kpipe over TensorFlow."""
    keras_file = str(trained(work, NETWORKS[0], 0))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(convert(load(keras_file), "int8", calibration(work, 0)))
        photo = str(work.manifest.table["path"].iloc[0])
        labels = [str(number) for number in range(len(work.manifest.classes))]
        ours = f"Classifier({str(path)!r}, {labels!r}).predict({photo!r})"
        theirs = (
            "import keras, numpy; from keras.utils import img_to_array, load_img; "
            f"photo = img_to_array(load_img({photo!r}, target_size=({SIZE}, {SIZE}))); "
            f"model = keras.models.load_model({keras_file!r}, compile=False); "
            "model.predict(photo[None], verbose=0)"
        )
        ratios = []
        for _ in range(runs):
            times = []
            for code in (f"from kpipe.lite import Classifier; {ours}", theirs):
                start = time.perf_counter()
                subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
                times.append(time.perf_counter() - start)
            ratios.append(times[0] / times[1])
    print(f"first prediction of a fresh process, over Keras on TensorFlow: {np.median(ratios):.2f}")


def pair(work: Work, dense: Path, pruned: Path, rounds: int) -> None:
    """Print the latency, size and accuracy of a pruned int8 file over the dense float32 file."""
    first, second = load(dense), load(pruned)
    files = [convert(first), convert(second, "int8", calibration(work, 0))]
    plain, found = compare(files, runs=rounds)
    accuracies = [accuracy(work, content, "test") for content in files]
    print(
        f"{pruned.name}, int8, over {dense.name}, float32: latency {found.ratio:.2f}, "
        f"size {found.size / plain.size:.2f}, "
        f"test accuracy {accuracies[1]:.1%} against {accuracies[0]:.1%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--forms", nargs="*", choices=FORMS, default=FORMS)
    parser.add_argument("--pair", type=Path, nargs=2)
    parser.add_argument("--larger", type=Path)
    parser.add_argument("--runs", type=int, default=300, help="runs for the latencies at the end")
    parser.add_argument("--jax", action="store_true", help="train with Keras on JAX")
    asked = parser.parse_args()
    work = Work.of(asked.folder, asked.work, asked.weights, asked.jax)
    # The report compares the others with these two.
    forms = [form for form in FORMS if form in ("float32", "int8", *asked.forms)]
    for seed in asked.seeds:
        for name in asked.networks:
            measure(work, name, seed, forms)
    if asked.larger:
        for seed in asked.seeds:
            larger(work, asked.larger, seed)
    report(work)
    untrained(asked.runs)
    layers(asked.runs)
    activations(asked.runs)
    first_prediction(work)
    if asked.pair:
        dense, pruned = asked.pair
        pair(work, dense, pruned, asked.runs)


if __name__ == "__main__":
    main()
