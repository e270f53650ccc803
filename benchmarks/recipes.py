"""Try recipes of FineTune on parts of four photo sets, judged by validation cross-entropy.

    python benchmarks/recipes.py prepare PHOTOS
    python benchmarks/recipes.py run PHOTOS --weights FILE --results recipes.jsonl [--only NAME ...]
    python benchmarks/recipes.py table --results recipes.jsonl

PHOTOS holds clothing/ (with train/, validation/ and test/), tiles/ (a folder per class) and
cifar10/train/ (a folder per class); the solar cells come from the package elpv-dataset. `prepare`
splits each set as kpipe does, keeps 1,000 training photos (250 of the small sets) and up to 1,000
validation photos, stratified, and writes PHOTOS/parts/SET.csv. No test photo is listed, so none can
be looked at.

A trial is a pipeline of Data, Augment and FineTune on MobileNetV2 0.35 at 96 px, run by kpipe and
cached below PHOTOS/trials. Its row: set, recipe, seed, validation cross-entropy, accuracy and
balanced accuracy of the model that FineTune keeps, processor seconds. Cross-entropy is taken
relative to that of the recipe "base" of the same set and seed, so that sets count alike.
"""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kpipe import Pipeline
from kpipe.core.journal import read_journal
from kpipe.core.runner import run
from kpipe.data import Manifest, from_csv, from_folder, split
from kpipe.ensemble import fit_temperature
from kpipe.stages import Augment, Balance, Data, FineTune

from results import grid_script, read_rows  # isort: skip

if TYPE_CHECKING:
    import keras

SIZE, TRAIN, VALIDATION = 96, 1000, 1000
# Set of trials -> photo set and number of training photos. The small ones tell how many epochs few
# photos need.
SETS = {
    "clothing": ("clothing", TRAIN),
    "tiles": ("tiles", TRAIN),
    "cells": ("cells", TRAIN),
    "cifar10": ("cifar10", TRAIN),
    "clothing-250": ("clothing", 250),
    "cifar10-250": ("cifar10", 250),
}
# Fractions and seed of the splits. That of the tiles, chosen by its counts alone, leaves no class
# almost absent from a split: nearly all of them look like others, which stay in one split.
SPLITS = {"tiles": ((0.5, 0.2, 0.3), 1)}
SPLIT = ((0.7, 0.15, 0.15), 7)
FLIPS = {
    "clothing": "horizontal",
    "tiles": "horizontal_and_vertical",
    "cells": "horizontal_and_vertical",
    "cifar10": "horizontal",
}
PLAIN = {"flip": "", "rotate": 0.05, "crop": 0.8, "brightness": 0.1, "contrast": 0.2}
BASE = {"retrain_last": 30, "learning_rate": 1e-3, "epochs": 20, "freeze_norm": False}
ALL = {**BASE, "retrain_last": None, "learning_rate": 3e-4}
FROZEN = {**ALL, "freeze_norm": True}
SWITCH = {"switch_to": "sgd", "switch_learning_rate": 1e-2}

# Recipe -> fields of FineTune; of Augment ("augment"), Balance ("balance") and Data ("image_size").
RECIPES: dict[str, dict[str, Any]] = {
    "base": BASE,
    # Which layers, and how fast.
    "head": {**BASE, "retrain_last": 0},
    "last 60": {**BASE, "retrain_last": 60},
    "last 100": {**BASE, "retrain_last": 100},
    "last 30, 3e-4": {**BASE, "learning_rate": 3e-4},
    "last 30, frozen norm": {**BASE, "freeze_norm": True},
    "last 30, 8 views": {**BASE, "cached_views": 8, "cached_phases": "all"},
    "last 30, 8 views, 60 epochs": {
        **BASE,
        "cached_views": 8,
        "cached_phases": "all",
        "epochs": 60,
    },
    "all, 3e-3": {**ALL, "learning_rate": 3e-3},
    "all, 1e-3": {**ALL, "learning_rate": 1e-3},
    "all, 3e-4": ALL,
    "all, 1e-4": {**ALL, "learning_rate": 1e-4},
    "all, backbone 0.1": {**ALL, "learning_rate": 1e-3, "backbone_factor": 0.1},
    "all, decay 0.9": {**ALL, "learning_rate": 1e-3, "layer_decay": 0.9},
    "all, decay 0.8": {**ALL, "learning_rate": 1e-3, "layer_decay": 0.8},
    "all, no head first": {**ALL, "head_epochs": 0},
    "all, warm-up": {**ALL, "warmup": 0.1},
    "all, warm-up, 1e-3": {**ALL, "learning_rate": 1e-3, "warmup": 0.1},
    "all, warm-up, clip 1": {**ALL, "learning_rate": 1e-3, "warmup": 0.1, "clip_norm": 1.0},
    "all, frozen norm": FROZEN,
    "all, frozen norm, 1e-3": {**FROZEN, "learning_rate": 1e-3},
    "all, one-cycle": {**ALL, "schedule": "one-cycle"},
    "all, 40 epochs": {**ALL, "epochs": 40},
    "last 30, smoothing 0.1": {**BASE, "label_smoothing": 0.1},
    "last 30, ema 0.99": {**BASE, "ema_momentum": 0.99},
    "last 30, dropout 0.5": {**BASE, "dropout": 0.5},
    "last 30, sgd 1e-2": {**BASE, "optimizer": "sgd", "learning_rate": 1e-2},
    "last 30, mix_up 0.2": {**BASE, "augment": {"mix_up": 0.2}},
    "last 30, cut_mix 1": {**BASE, "augment": {"cut_mix": 1.0}},
    "last 30, rand_augment 0.3": {**BASE, "augment": {"rand_augment": 0.3}},
    "last 30, crop 0.5": {**BASE, "augment": {"crop": 0.5}},
    # Optimizers and the switch, each at several rates.
    "all, adamw": {**ALL, "optimizer": "adamw"},
    "all, adamw 0.05": {**ALL, "optimizer": "adamw", "weight_decay": 0.05},
    "all, sgd 3e-2": {**ALL, "optimizer": "sgd", "learning_rate": 3e-2},
    "all, sgd 1e-2": {**ALL, "optimizer": "sgd", "learning_rate": 1e-2},
    "all, sgd 3e-3": {**ALL, "optimizer": "sgd", "learning_rate": 3e-3},
    "all, switch at 10": {**ALL, **SWITCH, "switch_when": 10},
    "all, switch at plateau": {**ALL, **SWITCH},
    "all, swats": {**ALL, "switch_to": "sgd", "switch_when": "swats", "schedule": "constant"},
    # Regularization.
    "all, smoothing 0.1": {**ALL, "label_smoothing": 0.1},
    "all, ema 0.99": {**ALL, "ema_momentum": 0.99},
    "all, dropout 0.5": {**ALL, "dropout": 0.5},
    "all, batch 16": {**ALL, "batch_size": 16},
    "all, batch 64": {**ALL, "batch_size": 64},
    "all, mix_up 0.2": {**ALL, "augment": {"mix_up": 0.2}},
    "all, cut_mix 1": {**ALL, "augment": {"cut_mix": 1.0}},
    "all, rand_augment 0.3": {**ALL, "augment": {"rand_augment": 0.3}},
    "all, flips only": {**ALL, "augment": dict.fromkeys(PLAIN, 0.0) | {"crop": 1.0, "flip": ""}},
    "all, crop 0.5": {**ALL, "augment": {"crop": 0.5}},
    "all, class weights": {**ALL, "balance": "class_weight"},
    "all, low res 64": {**ALL, "low_res_size": 64, "full_res_epochs": 4, "epochs": 16},
    # Around the best of those above: all layers, normalization frozen.
    "frozen norm, 1e-3, warm-up": {**FROZEN, "learning_rate": 1e-3, "warmup": 0.1},
    "frozen norm, 1e-4": {**FROZEN, "learning_rate": 1e-4},
    "frozen norm, head 3e-3": {**FROZEN, "head_learning_rate": 3e-3},
    "frozen norm, 5e-4, head 3e-3, warm-up": {
        **FROZEN,
        "learning_rate": 5e-4,
        "head_learning_rate": 3e-3,
        "warmup": 0.1,
    },
    "frozen norm, 1e-4, warm-up": {**FROZEN, "learning_rate": 1e-4, "warmup": 0.1},
    "frozen norm, warm-up": {**FROZEN, "warmup": 0.1},
    "frozen norm, warm-up, clip 1": {**FROZEN, "warmup": 0.1, "clip_norm": 1.0},
    "frozen norm, decay 0.8": {**FROZEN, "layer_decay": 0.8},
    "frozen norm, decay 0.9": {**FROZEN, "learning_rate": 1e-3, "layer_decay": 0.9},
    "frozen norm, last 60": {**FROZEN, "retrain_last": 60},
    "frozen norm, last 100": {**FROZEN, "retrain_last": 100},
    "frozen norm, 10 epochs": {**FROZEN, "epochs": 10},
    "frozen norm, 15 epochs": {**FROZEN, "epochs": 15},
    "frozen norm, 40 epochs": {**FROZEN, "epochs": 40},
    "frozen norm, 5e-4": {**FROZEN, "learning_rate": 5e-4},
    "frozen norm, sgd 1e-2": {**FROZEN, "optimizer": "sgd", "learning_rate": 1e-2},
    "frozen norm, sgd 3e-2": {
        **FROZEN,
        "optimizer": "sgd",
        "learning_rate": 3e-2,
        "head_learning_rate": 1e-1,
    },
    "frozen norm, sgd 3e-3": {**FROZEN, "optimizer": "sgd", "learning_rate": 3e-3},
    "frozen norm, switch at 10": {**FROZEN, **SWITCH, "switch_when": 10},
    "frozen norm, switch at plateau": {**FROZEN, **SWITCH},
    "frozen norm, swats": {
        **FROZEN,
        "switch_to": "sgd",
        "switch_when": "swats",
        "schedule": "constant",
    },
    "frozen norm, swats 1e-3": {
        **FROZEN,
        "switch_to": "sgd",
        "switch_when": "swats",
        "schedule": "constant",
        "swats_tolerance": 1e-3,
    },
    "frozen norm, swats by layers": {**FROZEN, "optimizer": "swats"},
    "frozen norm, swats by layers, 1e-3": {
        **FROZEN,
        "optimizer": "swats",
        "swats_tolerance": 1e-3,
    },
    "frozen norm, sgd 1e-2, warm-up": {
        **FROZEN,
        "optimizer": "sgd",
        "learning_rate": 1e-2,
        "warmup": 0.1,
    },
    "frozen norm, switch at 10 to 3e-3": {
        **FROZEN,
        "switch_to": "sgd",
        "switch_learning_rate": 3e-3,
        "switch_when": 10,
    },
    "frozen norm, switch at 10 to 1e-3": {
        **FROZEN,
        "switch_to": "sgd",
        "switch_learning_rate": 1e-3,
        "switch_when": 10,
    },
    "frozen norm, low res 64": {**FROZEN, "low_res_size": 64, "full_res_epochs": 4, "epochs": 16},
    "frozen norm, batch 64": {**FROZEN, "batch_size": 64},
    "frozen norm, one-cycle": {**FROZEN, "schedule": "one-cycle"},
    "frozen norm, adamw 0.05": {**FROZEN, "optimizer": "adamw", "weight_decay": 0.05},
    "frozen norm, smoothing 0.1": {**FROZEN, "label_smoothing": 0.1},
    "frozen norm, ema 0.99": {**FROZEN, "ema_momentum": 0.99},
    "frozen norm, dropout 0.5": {**FROZEN, "dropout": 0.5},
    "frozen norm, batch 16": {**FROZEN, "batch_size": 16},
    "frozen norm, crop 0.5": {**FROZEN, "augment": {"crop": 0.5}},
    "frozen norm, mix_up 0.2": {**FROZEN, "augment": {"mix_up": 0.2}},
    "frozen norm, cut_mix 1": {**FROZEN, "augment": {"cut_mix": 1.0}},
    "frozen norm, rand_augment 0.3": {**FROZEN, "augment": {"rand_augment": 0.3}},
    "frozen norm, class weights": {**FROZEN, "balance": "class_weight"},
    "frozen norm, 160 px": {**FROZEN, "image_size": 160},
    "frozen norm, 224 px": {**FROZEN, "image_size": 224},
    "frozen norm, 80 epochs": {**FROZEN, "epochs": 80},
    # With time, against overfitting.
    "frozen norm, 60 epochs, cut_mix 1": {**FROZEN, "epochs": 60, "augment": {"cut_mix": 1.0}},
    "frozen norm, 60 epochs, mix_up 0.2": {**FROZEN, "epochs": 60, "augment": {"mix_up": 0.2}},
    "frozen norm, 60 epochs, ema 0.99": {**FROZEN, "epochs": 60, "ema_momentum": 0.99},
    "frozen norm, 60 epochs, crop 0.5": {**FROZEN, "epochs": 60, "augment": {"crop": 0.5}},
    "frozen norm, ema 0.99, warm-up": {**FROZEN, "ema_momentum": 0.99, "warmup": 0.1},
    "frozen norm, last 60, 6 epochs": {**FROZEN, "retrain_last": 60, "epochs": 6},
    "frozen norm, last 100, 8 epochs": {**FROZEN, "retrain_last": 100, "epochs": 8},
    "frozen norm, 6 epochs": {**FROZEN, "epochs": 6},
    "frozen norm, 6 epochs, 5e-4": {**FROZEN, "epochs": 6, "learning_rate": 5e-4},
}


def prepare(photos: Path) -> None:
    parts = photos / "parts"
    parts.mkdir(exist_ok=True)
    manifests = sets(photos)
    for name, (source, count) in SETS.items():
        fractions, seed = SPLITS.get(source, SPLIT)
        table = split(manifests[source], fractions, seed=seed).table
        rows = [
            stratified(table[table["split"] == part], most)
            for part, most in (("train", count), ("validation", VALIDATION))
        ]
        listed = pd.concat(rows)[["path", "label", "split"]]
        listed["path"] = [str((photos / path).resolve()) for path in listed["path"]]
        listed.to_csv(parts / f"{name}.csv", index=False)
        print(name, listed.groupby(["split", "label"]).size().unstack().to_string(), sep="\n")


def sets(photos: Path) -> dict[str, Manifest]:
    package = importlib.util.find_spec("elpv_dataset")
    assert package and package.origin, 'pip install -e ".[quickstart]"'
    return {
        "clothing": from_folder(photos / "clothing"),
        "tiles": from_folder(photos / "tiles"),
        "cells": from_csv(
            Path(package.origin).parent / "data" / "labels.csv",
            image="photo",
            label="defect",
            classes={"0.0": "sound", "1.0": "defective"},
            sep=r"\s+",
            header=None,
            names=["photo", "defect", "cell"],
        ),
        "cifar10": from_folder(photos / "cifar10" / "train"),
    }


def stratified(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """Keep a share of each class, of those with the lowest sha256."""
    share = min(1.0, count / len(table))
    ordered = table.sort_values("sha256")
    rank, sizes = (
        ordered.groupby("label").cumcount(),
        ordered["label"].map(table["label"].value_counts()),
    )
    return ordered[rank < (share * sizes).round().clip(lower=1)]


def trial(name: str, recipe: str, seed: int, photos: Path, weights: str) -> dict[str, Any]:
    fields = dict(RECIPES[recipe])
    augment = {**PLAIN, "flip": FLIPS[SETS[name][0]], **fields.pop("augment", {})}
    balance = fields.pop("balance", None)
    size = fields.pop("image_size", SIZE)
    stages = [
        Data(str(photos / "parts" / f"{name}.csv"), image_size=size, image="path", label="label"),
        *([Balance(balance)] if balance else []),
        Augment(**augment),
        FineTune("MobileNetV2", alpha=0.35, weights=weights, **fields),
    ]
    fields = {**stages[-1].configuration(), "weights": Path(weights).name}
    start = time.process_time()
    folder = run(Pipeline(f"{name}-trial", stages, seed=seed), photos / "trials").folder
    return {
        "set": name,
        "recipe": recipe,
        "fields": fields,
        "seed": seed,
        "seconds": round(time.process_time() - start, 1),
        **judge(folder),
    }


def judge(folder: Path) -> dict[str, float]:
    """Return how the kept model of a run does on the validation photos."""
    import keras

    model = keras.models.load_model(folder / "model.keras")
    found = measure(model, stage_folder(folder, "Data"))
    keras.backend.clear_session()
    return found


def measure(model: keras.Model, prepared: Path, part: str = "validation") -> dict[str, float]:
    """Return how a model does on the photos of a split, prepared by Data."""
    from sklearn.metrics import accuracy_score, balanced_accuracy_score

    manifest = Manifest.load(prepared)
    images = np.load(prepared / "images.npy", mmap_mode="r")[manifest.rows(part)]
    probabilities = model.predict(images.astype("float32"), batch_size=64, verbose=0)
    labels = manifest.labels(part)
    fit = fit_temperature(probabilities, labels)
    return {
        "photos": len(labels),
        "cross_entropy": fit.before,
        "calibrated": fit.after,
        "temperature": fit.temperature,
        "accuracy": float(accuracy_score(labels, probabilities.argmax(1))),
        "balanced": float(balanced_accuracy_score(labels, probabilities.argmax(1))),
    }


def stage_folder(folder: Path, stage: str) -> Path:
    """Return the folder of a stage's result in a run."""
    events = [e for e in read_journal(folder / "journal.jsonl") if e.get("stage") == stage]
    return (folder / [event["folder"] for event in events if "folder" in event][-1]).resolve()


def table(results: Path) -> None:
    rows = pd.DataFrame(read_rows(results))
    base = rows[rows["recipe"] == "base"].set_index(["set", "seed"])
    keys = pd.MultiIndex.from_frame(rows[["set", "seed"]])
    reference = base.reindex(keys)
    rows["relative"] = rows["cross_entropy"] / reference["cross_entropy"].to_numpy()
    rows["time"] = rows["seconds"] / reference["seconds"].to_numpy()
    rows["points"] = 100 * (rows["accuracy"] - reference["accuracy"].to_numpy())
    by_set = rows.pivot_table("relative", "recipe", "set", "mean")
    whole = rows.groupby("recipe").agg(
        relative=("relative", "mean"),
        points=("points", "mean"),
        time=("time", "mean"),
        trials=("seed", "size"),
    )
    found = whole.join(by_set).sort_values("relative")
    print(found.round(3).to_markdown() if importlib.util.find_spec("tabulate") else found.round(3))


def main() -> None:
    title = __doc__.splitlines()[0]
    grid_script(title, "recipes.jsonl", RECIPES, list(SETS), trial, table, {"prepare": prepare})


if __name__ == "__main__":
    main()
