"""Measure what snapshots of one training bring, against one network and members of other seeds.

    python benchmarks/snapshots.py run PHOTOS --weights FILE --results snapshots.jsonl
        [--only RECIPE ...] [--sets SET ...] [--seeds 0 1 2]
    python benchmarks/snapshots.py table --results snapshots.jsonl

PHOTOS and FILE as for `recipes.py`, whose parts of the photo sets and network these are: 1,000
training photos at 96 px, MobileNetV2 0.35, FineTune's defaults, four members. A row holds the
cross-entropy and accuracy of each member and combination on the photos that FineTune, and the
selection of a greedy soup, validate on: an advantage that the first member and the soup have over
the averages. It also holds the soup of all members, which nothing selects.

    snapshot    members that go on from one another, along a cosine of a quarter of the epochs
    seed        members that differ in the seed and the strength of the augmentation
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pandas as pd
from recipes import FLIPS, measure, stage_folder
from results import grid_script, read_rows
from retraining import network_stages

from kpipe import Pipeline
from kpipe.core.runner import run
from kpipe.ensemble import soup
from kpipe.stages import Ensemble

RECIPES: dict[str, dict[str, Any]] = {
    "snapshot": {"members": 4, "combine": "soup"},
    "seed": {"members": 4},
}


def trial(name: str, recipe: str, seed: int, photos: Path, weights: str) -> dict[str, Any]:
    """Train the members of a set and seed, and return the row of the trial."""
    import keras

    stages = [*network_stages(name, photos, weights), Ensemble(**RECIPES[recipe])]
    start = time.process_time()
    folder = run(Pipeline(f"{name}-{recipe}", stages, seed=seed), photos / "trials").folder
    seconds = round(time.process_time() - start, 1)
    made = stage_folder(folder, "Ensemble")
    report = json.loads((made / "ensemble.json").read_text(encoding="utf-8"))
    scores = {row["name"]: row for row in report["combinations"]}
    scores |= {row["title"]: row for row in report["members"]}
    first = stage_folder(folder, "FineTune")
    members = [
        first,
        *(made / f"member-{number}" for number in range(2, len(report["members"]) + 1)),
    ]
    models = [keras.models.load_model(member / "model.keras") for member in members]
    found = measure(soup(models), stage_folder(folder, "Data"))
    scores["soup of all"] = {"loss": found["cross_entropy"], "accuracy": found["accuracy"]}
    keras.backend.clear_session()
    return {
        "set": name,
        "recipe": recipe,
        "seed": seed,
        "seconds": seconds,
        "photos": report["photos"],
        "scores": {title: (row["loss"], row["accuracy"]) for title, row in scores.items()},
        "weights": [row["weight"] for row in report["members"]],
    }


def table(results: Path) -> None:
    """Print each set's mean cross-entropy and accuracy over the seeds, one row for each score."""
    cells: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {}
    for row in read_rows(results):
        for title, score in row["scores"].items():
            column = cells.setdefault((row["set"], row["recipe"]), {})
            column.setdefault(title, []).append(score)
    means = {
        key: {
            title: f"{sum(s[0] for s in of) / len(of):.3f}, {sum(s[1] for s in of) / len(of):.1%}"
            for title, of in column.items()
        }
        for key, column in cells.items()
    }
    print(pd.DataFrame(means).to_string())


def main() -> None:
    title = __doc__.splitlines()[0]
    grid_script(title, "snapshots.jsonl", RECIPES, list(FLIPS), trial, table)


if __name__ == "__main__":
    main()
