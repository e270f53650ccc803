"""Compare the ways of balancing uneven classes on the test split, at the same budget.

    python benchmarks/balance.py FOLDER --weights FILE --seeds 3 --epochs 15

FOLDER holds `class/photo`. FILE holds weights of MobileNetV2 0.35 without its top. One row per
method: MobileNetV2 0.35, its last 30 layers and a new head, trained by Adam with the default
augmentation.

Budget: every method makes the same number of gradient steps with batches of the same size:
`--epochs` times the number of batches that hold each training photo once. An epoch of
under-sampling is shorter and one of over-sampling longer, so the same steps are more epochs of the
one and fewer of the other. After each `--epochs`th part of the steps, the validation loss (without
weights) is measured; the weights with the lowest loss are kept. Only the last measurement uses the
test split.

The learning rate, 5e-4 falling to 0, was chosen among 1e-3 and 5e-4 by the validation loss of the
methods "none" and "undersample". The seed of the split was chosen by the counts alone, so that no
class is almost absent from a split. All runs share that split: the seed of a run decides the head,
the order, the sampling, the augmentation and the dropout. Photos that look alike share a split.

The script trains every method with one seed, then with the next. It writes results after each run,
and resumes where it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from sklearn.metrics import balanced_accuracy_score

from kpipe.data import (
    Augmenter,
    Manifest,
    Sampling,
    TrainingOptions,
    class_shares,
    class_weight,
    dataset,
    decode,
    from_folder,
    split,
    steps,
)
from kpipe.data.balancing.class_weights import Weighting
from kpipe.stages import Augment
from kpipe.train import (
    TrainingConfig,
    TrainingData,
    adapt_bn_momentum,
    backbone,
    classifier,
    fit,
    unfreeze,
)

# The sampling and the class weights of each method.
METHODS: dict[str, tuple[Sampling | None, Weighting | None]] = {
    "none": (None, None),
    "class_weight": (None, "balanced"),
    "class_weight, effective": (None, "effective"),
    "oversample": (Sampling("oversample"), None),
    "undersample": (Sampling("undersample"), None),
    "augment_minority": (Sampling("augment_minority"), None),
}
BATCH = 32


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", default="imagenet", help='a file, or "imagenet"')
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--split", type=float, nargs=3, default=[0.5, 0.2, 0.3])
    parser.add_argument("--split-seed", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path("balance.json"))
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    manifest = split(from_folder(asked.folder), asked.split, asked.split_seed)
    settings = {
        "photos": manifest.digest,
        "epochs": asked.epochs,
        "image_size": asked.image_size,
        "learning_rate": asked.learning_rate,
    }
    results: dict[str, Any] = {"settings": settings, "rows": []}
    if asked.results.exists():
        results = json.loads(asked.results.read_text())
        if results["settings"] != settings:
            raise SystemExit(f"{asked.results} holds results of other settings: move or delete it")
    done = {(row["method"], row["seed"]) for row in results["rows"]}
    print(manifest.counts())
    with tempfile.TemporaryDirectory() as folder:
        images = decode(manifest, asked.image_size, folder)
        for seed in range(asked.seeds):
            for method in asked.methods:
                if (method, seed) in done:
                    continue
                row = train(method, seed, manifest, images, asked)
                print(json.dumps(row), flush=True)
                results["rows"].append(row)
                asked.results.write_text(json.dumps(results, indent=1))
    print(table(results["rows"]))


def train(
    method: str, seed: int, manifest: Manifest, images: np.ndarray, asked: argparse.Namespace
) -> dict[str, Any]:
    """Train once; return the scores on validation and test."""
    started = time.perf_counter()
    sampling, weighting = METHODS[method]
    labels = manifest.labels("train")
    weights = class_weight(labels, manifest.classes, weighting) if weighting else None
    known = Augmenter.__dataclass_fields__
    default = {name: value for name, value in Augment().configuration().items() if name in known}
    options = TrainingOptions(seed=seed, augmenter=Augmenter(**default), sampling=sampling)

    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    base = backbone("MobileNetV2", image_size=asked.image_size, weights=asked.weights, alpha=0.35)
    model = classifier(base, len(manifest.classes), seed=seed)
    unfreeze(model, 30)
    # The same number of steps for every method, however long its epochs are.
    steps_per_epoch = steps(manifest, "train", BATCH)
    adapt_bn_momentum(model, steps_per_epoch)
    config = TrainingConfig(
        asked.epochs,
        learning_rate=asked.learning_rate,
        schedule="cosine",
        class_weight=weights,
    )
    result = fit(
        model,
        TrainingData(
            lambda _: dataset(manifest, "train", images=images, batch_size=BATCH, training=options),
            steps_per_epoch,
            dataset(manifest, "validation", images=images, batch_size=64),
        ),
        config,
    )
    seconds = time.perf_counter() - started
    return {
        "method": method,
        "seed": seed,
        "steps": asked.epochs * steps_per_epoch,
        "kept": result.best_epoch + 1,
        "val_loss": min(result.history["val_loss"]),
        "smallest_share": min(class_shares(labels, sampling, weights).values()),
        **{split: scores(model, manifest, images, split) for split in ("validation", "test")},
        "seconds": round(seconds),
    }


def scores(
    model: keras.Model, manifest: Manifest, images: np.ndarray, split: str
) -> dict[str, float]:
    probabilities = model.predict(dataset(manifest, split, images=images, batch_size=64), verbose=0)
    labels, found = manifest.labels(split), probabilities.argmax(axis=1)
    return {
        "accuracy": float(np.mean(found == labels)),
        "balanced_accuracy": float(balanced_accuracy_score(labels, found)),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and range over the seeds, on the test split."""
    lines = [
        "| method | smallest class's fraction | balanced accuracy | accuracy |",
        "|---|---|---|---|",
    ]
    for method in METHODS:
        found = [row for row in rows if row["method"] == method]
        if not found:
            continue
        cells = [f"{found[0]['smallest_share']:.1%}"]
        for measure in ("balanced_accuracy", "accuracy"):
            values = [row["test"][measure] for row in found]
            cells.append(f"{np.mean(values):.1%} ({min(values):.1%} to {max(values):.1%})")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
