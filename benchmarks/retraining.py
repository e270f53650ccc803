"""Try recipes of the retraining between and after removals, judged by validation cross-entropy.

    python benchmarks/retraining.py run PHOTOS --weights FILE --results retraining.jsonl
        [--only RECIPE ...] [--sets SET ...] [--seeds 0 1 2]
    python benchmarks/retraining.py table --results retraining.jsonl

PHOTOS and FILE as for `recipes.py`, whose parts of the photo sets these are: 1,000 training photos
of each set at 96 px, MobileNetV2 0.35, and no test photo. The network is trained once for each set
and seed, then pruned to half of its multiply-accumulates by each recipe. A row holds the validation
accuracy of each round after the removal and after the retraining, and how the result does.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pandas as pd
from recipes import FLIPS, PLAIN, SIZE, judge, stage_folder
from results import grid_script, read_rows

from kpipe import Pipeline
from kpipe.core.runner import run
from kpipe.core.stage import Stage
from kpipe.stages import Augment, Balance, Data, FilterPrune, FineTune

TWENTY = {"epochs": 1, "last_epochs": 20, "learning_rate": 3e-4}
NONE = {**TWENTY, "epochs": 0}

# Recipe -> fields of FilterPrune.
RECIPES: dict[str, dict[str, Any]] = {
    "1 and 6 epochs at 1e-4": {"epochs": 1, "last_epochs": 6, "learning_rate": 1e-4},
    "1 and 6 epochs": {"epochs": 1, "last_epochs": 6, "learning_rate": 3e-4},
    "1 and 6 epochs at 5e-4": {"epochs": 1, "last_epochs": 6, "learning_rate": 5e-4},
    "1 and 12 epochs": {"epochs": 1, "last_epochs": 12, "learning_rate": 3e-4},
    "1 and 20 epochs": TWENTY,
    "1 and 20 epochs at 1e-4": {**TWENTY, "learning_rate": 1e-4},
    "1 and 20 epochs at 5e-4": {**TWENTY, "learning_rate": 5e-4},
    "0 and 20 epochs": {**TWENTY, "epochs": 0},
    "3 and 12 epochs": {"epochs": 3, "last_epochs": 12, "learning_rate": 3e-4},
    "one round, 20 epochs": {**TWENTY, "rounds": 1},
    "8 rounds, 1 and 20 epochs": {**TWENTY, "rounds": 8},
    "1 and 20 epochs, no teacher": {**TWENTY, "soft_target_weight": 0.0},
    "1 and 20 epochs, teacher 4": {**TWENTY, "soft_target_weight": 4.0},
    "1 and 20 epochs, teacher 4, features 40": {
        **TWENTY,
        "soft_target_weight": 4.0,
        "feature_weight": 40.0,
    },
    "1 and 20 epochs, batches of 32": {**TWENTY, "batch_size": 32},
    "1 and 20 epochs, l1": {**TWENTY, "criterion": "l1"},
    "1 and 20 epochs, taylor": {**TWENTY, "criterion": "taylor"},
    "1 and 20 epochs, sgd 1e-2": {**TWENTY, "optimizer": "sgd", "learning_rate": 1e-2},
    # Around the best of those above: no epoch between rounds.
    "0 and 6 epochs": {**NONE, "last_epochs": 6},
    "0 and 6 epochs, warm-up": {**NONE, "last_epochs": 6, "warmup": 0.1},
    "0 and 20 epochs, warm-up": {**NONE, "warmup": 0.1},
    "0 and 20 epochs, warm-up 0.3": {**NONE, "warmup": 0.3},
    "0 and 20 epochs, teacher 4": {**NONE, "soft_target_weight": 4.0},
    "0 and 20 epochs, teacher 4, features 40": {
        **NONE,
        "soft_target_weight": 4.0,
        "feature_weight": 40.0,
    },
    "0 and 20 epochs, no teacher": {**NONE, "soft_target_weight": 0.0},
    "0 and 20 epochs at 1e-4": {**NONE, "learning_rate": 1e-4},
    "0 and 20 epochs at 5e-4": {**NONE, "learning_rate": 5e-4},
    "0 and 20 epochs, batches of 32": {**NONE, "batch_size": 32},
    "0 and 40 epochs": {**NONE, "last_epochs": 40},
    "one round, 0 and 20 epochs": {**NONE, "rounds": 1},
    "8 rounds, 0 and 20 epochs": {**NONE, "rounds": 8},
}


def whole_network(name: str, seed: int, photos: Path, weights: str) -> Path:
    """Train the network of a set and seed, unless it is there; return the folder of its run."""
    stages = network_stages(name, photos, weights)
    return run(Pipeline(f"{name}-whole", stages, seed=seed), photos / "trials").folder


def network_stages(name: str, photos: Path, weights: str) -> list[Stage]:
    return [
        Data(str(photos / "parts" / f"{name}.csv"), image_size=SIZE, image="path", label="label"),
        *([Balance("class_weight")] if name in ("tiles", "cells") else []),
        Augment(**{**PLAIN, "flip": FLIPS[name]}),
        FineTune("MobileNetV2", alpha=0.35, weights=weights),
    ]


def trial(name: str, recipe: str, seed: int, photos: Path, weights: str) -> dict[str, Any]:
    """Prune the network of a set by a recipe, and return the row of the trial."""
    whole = whole_network(name, seed, photos, weights)
    start = time.process_time()
    which = f"retraining-{list(RECIPES).index(recipe)}"
    stages = [*network_stages(name, photos, weights), FilterPrune(**RECIPES[recipe])]
    folder = run(Pipeline(f"{name}-{which}", stages, seed=seed), photos / "trials").folder
    seconds = round(time.process_time() - start, 1)
    rounds = json.loads((stage_folder(folder, "FilterPrune") / "pruning.json").read_text())
    return {
        "set": name,
        "recipe": recipe,
        "fields": RECIPES[recipe],
        "seed": seed,
        "seconds": seconds,
        "rounds": [(row["before"], row["after"]) for row in rounds["rounds"]],
        "whole": judge(whole),
        **judge(folder),
    }


def table(results: Path) -> None:
    rows = pd.DataFrame(read_rows(results))
    rows["change in points"] = 100 * (
        rows["accuracy"] - [whole["accuracy"] for whole in rows["whole"]]
    )
    rows["relative cross-entropy"] = rows["cross_entropy"] / [
        whole["cross_entropy"] for whole in rows["whole"]
    ]
    rows["calibrated, relative"] = rows["calibrated"] / [
        whole["calibrated"] for whole in rows["whole"]
    ]
    columns = ["change in points", "relative cross-entropy", "calibrated, relative", "seconds"]
    found = rows.groupby("recipe")[columns].mean()
    found["trials"] = rows.groupby("recipe").size()
    print(found.sort_values("calibrated, relative").round(3).to_string())
    for row in rows.itertuples():
        steps = ", ".join(f"{before:.1%} -> {after:.1%}" for before, after in row.rounds[1:])
        print(f"{row.set}, {row.recipe}, seed {row.seed}: {row.rounds[0][1]:.1%}; {steps}")


def main() -> None:
    title = __doc__.splitlines()[0]
    grid_script(title, "retraining.jsonl", RECIPES, list(FLIPS), trial, table)


if __name__ == "__main__":
    main()
