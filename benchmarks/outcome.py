"""Measure what a newcomer gets: accuracy on test photos, and minutes.

    python benchmarks/outcome.py run PHOTOS --weights FILE --results outcome.jsonl
        [--only CASE ...] [--sets SET ...] [--seeds 0 1 2]
    python benchmarks/outcome.py table --results outcome.jsonl

PHOTOS holds clothing/ (train/, validation/, test/) and tiles/ (a folder per class); see
`recipes.py`. FILE holds the ImageNet weights of MobileNetV2 0.35. Each case trains the same network
at 160 px on the same split; whatever is chosen, is chosen on validation, and the test photos are
looked at once.

    keras.io   the recipe of Keras' guide to transfer learning: frozen network and new head for 20
               epochs with Adam, then all layers for 10 epochs at 1e-5, normalization in inference
               mode, flips and rotations. https://keras.io/guides/transfer_learning
    before     FineTune's defaults of kpipe 0.1: the last 30 layers, Adam at 1e-3, 20 epochs
    quick, standard, best   FineTune(effort=...)
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from recipes import FLIPS, SPLIT, SPLITS, measure, stage_folder
from results import grid_script, read_rows

from kpipe import Pipeline
from kpipe.core.runner import run
from kpipe.data import Manifest, from_folder, split
from kpipe.stages import Augment, Balance, Data, FineTune

SIZE = 160
SETS = ("clothing", "tiles")
BEFORE = {"retrain_last": 30, "learning_rate": 1e-3, "epochs": 20, "freeze_norm": False}
CASES = ("keras.io", "before", "quick", "standard", "best")


def case(which: str, name: str, seed: int, photos: Path, weights: str) -> dict[str, Any]:
    """Train one case, and return its row."""
    data = Data(str(listed(photos, which)), image_size=SIZE, image="path", label="label")
    prepared = run(Pipeline(f"{which}-data", [data]), photos / "outcome").folder
    folder = stage_folder(prepared, "Data")
    start = time.monotonic()
    if name == "keras.io":
        model = keras_io(folder, seed, weights)
    else:
        model = by_kpipe(name, data, photos / "outcome", which, seed, weights)
    minutes = (time.monotonic() - start) / 60
    row: dict[str, Any] = {"recipe": name, "set": which, "seed": seed, "minutes": round(minutes, 2)}
    for part in ("validation", "test"):
        row |= {f"{part} {name}": value for name, value in measure(model, folder, part).items()}
    keras.backend.clear_session()
    return row


def listed(photos: Path, which: str) -> Path:
    """List the photos of a set with their splits, which no seed of a case changes."""
    path = photos / "outcome" / f"{which}.csv"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        manifest = from_folder(photos / which)
        fractions, seed = SPLITS.get(which, SPLIT)
        table = split(manifest, fractions, seed=seed).table[["path", "label", "split"]]
        table = table.assign(path=[str((photos / name).resolve()) for name in table["path"]])
        table.to_csv(path, index=False)
    return path


def by_kpipe(name: str, data: Data, root: Path, which: str, seed: int, weights: str) -> keras.Model:
    fields: dict[str, Any] = BEFORE if name == "before" else {"effort": name}
    stages = [
        data,
        *([Balance("class_weight")] if which == "tiles" else []),
        Augment(flip=FLIPS[which]),
        FineTune("MobileNetV2", alpha=0.35, weights=weights, **fields),
    ]
    done = run(Pipeline(f"{which}-{name}", stages, seed=seed), root)
    return keras.models.load_model(done.folder / "model.keras")


def keras_io(folder: Path, seed: int, weights: str) -> keras.Model:
    """Train as Keras' guide does."""
    keras.utils.set_random_seed(seed)
    manifest = Manifest.load(folder)
    images = np.load(folder / "images.npy", mmap_mode="r")
    train, validation = (
        (images[manifest.rows(part)], manifest.labels(part)) for part in ("train", "validation")
    )
    base = keras.applications.MobileNetV2(
        (SIZE, SIZE, 3), alpha=0.35, include_top=False, weights=weights
    )
    base.trainable = False
    pixels = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.RandomFlip("horizontal")(pixels)
    x = keras.layers.RandomRotation(0.1)(x)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(x)
    x = keras.layers.GlobalAveragePooling2D()(base(x, training=False))
    x = keras.layers.Dropout(0.2)(x)
    model = keras.Model(pixels, keras.layers.Dense(len(manifest.classes), "softmax")(x))
    for trainable, rate, epochs in ((False, 1e-3, 20), (True, 1e-5, 10)):
        base.trainable = trainable
        model.compile(
            keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        model.fit(*train, epochs=epochs, validation_data=validation, verbose=0)
    return model


def table(results: Path) -> None:
    rows = pd.DataFrame(read_rows(results))
    groups = rows.groupby(["set", "recipe"])
    found = pd.DataFrame(
        {
            "seeds": groups["seed"].nunique(),
            "photos": groups["test photos"].first(),
            **{
                name: groups[f"test {name}"].agg(
                    lambda values: f"{values.mean():.1%} ({values.min():.1%}-{values.max():.1%})"
                )
                for name in ("accuracy", "balanced")
            },
            "cross-entropy": groups["test cross_entropy"].mean().round(3),
            "minutes": groups["minutes"].median().round(1),
        }
    )
    print(found.to_string())


def main() -> None:
    title = __doc__.splitlines()[0]
    grid_script(title, "outcome.jsonl", CASES, SETS, case, table)


if __name__ == "__main__":
    main()
