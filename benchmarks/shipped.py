"""Measure what reaches the file that ships: a network, its ensemble, and what learns from it.

    python benchmarks/shipped.py run PHOTOS --weights FILE --results shipped.jsonl
        [--sets SET ...] [--seeds 0 1 2]
    python benchmarks/shipped.py table --results shipped.jsonl

PHOTOS holds clothing/ (train/, validation/, test/) and tiles/ (a folder per class); see
`recipes.py`. FILE holds the ImageNet weights of MobileNetV2 0.35. All networks are that one at 96
px; kpipe's defaults apply. Whatever is chosen, is chosen on validation, and the test photos are
looked at once.

    single     the first of five members, which differ by their seeds and augmentation
    members    the mean of all five
    ensemble   their average, in one file
    distilled  a new network that the ensemble taught
    longer     the single network with as many epochs as it and the removal have together
    pruned     half the multiply-accumulates of the single network, taught by the ensemble
    int8       the same in int8, by LiteRT
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import keras
import pandas as pd
from outcome import listed
from recipes import FLIPS, measure, stage_folder
from results import grid_script, read_rows

from kpipe import Pipeline
from kpipe.core.runner import run
from kpipe.core.stage import Stage
from kpipe.stages import Augment, Balance, Data, Distill, Ensemble, Export, FilterPrune, FineTune
from kpipe.stages.training.efforts import epochs_of

SIZE, MEMBERS = 96, 5
SETS = ("clothing", "tiles")
ROWS = ("single", "members", "ensemble", "distilled", "longer", "pruned", "int8")


def case(which: str, name: str, seed: int, photos: Path, weights: str) -> dict[str, Any]:
    """Carry out the pipelines of one set and seed, and return their row."""
    prune = FilterPrune(macs=0.5)
    first: list[Stage] = [
        Data(str(listed(photos, which)), image_size=SIZE, image="path", label="label"),
        *([Balance("class_weight")] if which == "tiles" else []),
        Augment(flip=FLIPS[which]),
    ]
    single = FineTune("MobileNetV2", alpha=0.35, weights=weights)
    epochs = epochs_with(prune, listed(photos, which))
    longer = FineTune("MobileNetV2", alpha=0.35, weights=weights, epochs=epochs)
    student = Distill("MobileNetV2", alpha=0.35, weights=weights)
    # The accuracy is what is measured here, so that no loss of it refuses a file.
    export = Export(quantize="int8", tolerance=1.0, int8_tolerance=1.0)
    several = [*first, single, Ensemble(members=MEMBERS)]
    minutes, found = {}, {}
    for title, stages in {
        "pruned": [*several, prune, export],
        "distilled": [*several, student],
        "longer": [*first, longer],
    }.items():
        start = time.monotonic()
        pipeline = Pipeline(f"{which}-{title}", stages, seed=seed)
        found[title] = run(pipeline, photos / "outcome").folder
        minutes[title] = round((time.monotonic() - start) / 60, 1)
    whole = found["pruned"]
    data, ensemble = stage_folder(whole, "Data"), stage_folder(whole, "Ensemble")
    models = {
        "single": stage_folder(whole, "FineTune"),
        "ensemble": ensemble,
        "distilled": stage_folder(found["distilled"], "Distill"),
        "longer": stage_folder(found["longer"], "FineTune"),
        "pruned": stage_folder(whole, "FilterPrune"),
        **{f"member {n}": ensemble / f"member-{n}" for n in range(2, MEMBERS + 1)},
    }
    row: dict[str, Any] = {"set": which, "recipe": name, "seed": seed, "minutes": minutes}
    row["chosen"] = json.loads((ensemble / "ensemble.json").read_text(encoding="utf-8"))["chosen"]
    for title, folder in models.items():
        model = keras.models.load_model(folder / "model.keras")
        row[title] = {part: measure(model, data, part) for part in ("validation", "test")}
        keras.backend.clear_session()
    metrics = json.loads((whole / "metrics.json").read_text(encoding="utf-8"))
    files = {"single": metrics["models"][0], "int8": metrics["models"][-1]}
    row["files"] = {
        title: {key: file[key] for key in ("accuracy", "balanced_accuracy", "size", "macs")}
        | {"ece": file["calibration"]["test"]["ece"]}
        | {"debiased": file["calibration"]["test"]["debiased"]}
        for title, file in files.items()
    }
    return row


def epochs_with(prune: FilterPrune, listing: Path) -> int:
    """Return the epochs of FineTune on listed photos and of the rounds of a removal together."""
    tuning = FineTune("MobileNetV2")
    photos = (pd.read_csv(listing)["split"] == "train").sum()
    epochs = epochs_of(tuning.epochs, math.ceil(photos / tuning.batch_size))
    return epochs + (prune.rounds - 1) * prune.epochs_between + prune.last_epochs


def table(results: Path) -> None:
    """Print each row's accuracy on the test photos, one column for each set and seed."""
    columns = {}
    for row in read_rows(results):
        accuracy = {
            title: of["test"]["accuracy"]
            for title, of in row.items()
            if isinstance(of, dict) and "test" in of
        }
        members = [accuracy["single"]]
        members += [value for title, value in accuracy.items() if title.startswith("member ")]
        accuracy["members"] = sum(members) / len(members)
        accuracy["int8"] = row["files"]["int8"]["accuracy"]
        gain = accuracy["ensemble"] - accuracy["members"]
        column = {title: f"{accuracy[title]:.1%}" for title in ROWS}
        kept = (accuracy["distilled"] - accuracy["members"]) / gain if gain > 0 else None
        column["gain kept"] = "no gain" if kept is None else f"{kept:.2f}"
        column["ECE of int8"] = f"{row['files']['int8']['ece']:.3f}"
        column["photos"] = str(row["single"]["test"]["photos"])
        columns[f"{row['set']} {row['seed']}"] = column
    print(pd.DataFrame(columns).to_string())


def main() -> None:
    title = __doc__.splitlines()[0]
    grid_script(title, "shipped.jsonl", ["defaults"], SETS, case, table)


if __name__ == "__main__":
    main()
