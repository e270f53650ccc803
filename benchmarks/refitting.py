"""What is left of a network right after a removal: as it was cut, shifted, and refitted.

    python benchmarks/refitting.py PHOTOS --weights FILE [--sets SET ...] [--photos 320 1000]

PHOTOS and FILE as for `recipes.py`. MobileNetV2 0.35 at 96 px is trained once on 1,000 training
photos of each set, with kpipe's defaults and seed 0, as in `retraining.py`. Filters are removed at
once, by two criteria, down to three fractions of the multiply-accumulates, and nothing is trained
after that. Accuracy and cross-entropy are those of the validation photos, not of test photos.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import keras
import numpy as np
from recipes import FLIPS, measure, stage_folder
from retraining import whole_network

from kpipe.data import Manifest
from kpipe.prune import Selection, refit_weights, shift_statistics
from kpipe.prune.dependencies.dependency_graph import build_dependencies
from kpipe.prune.graph.graph_reading import read
from kpipe.prune.loop.selection import min_units, select
from kpipe.prune.loop.targets import find_target
from kpipe.prune.ranking.ranking import rank_groups
from kpipe.prune.surgery.planning import apply_plan, flat_copy, plan_units

CRITERIA, SHARES, ROUND_TO, BATCH = ("reconstruction", "l1"), (0.84, 0.5, 0.3), 8, 32


def compare(name: str, photos: Path, weights: str, counts: list[int]) -> None:
    run = whole_network(name, 0, photos, weights)
    prepared = stage_folder(run, "Data")
    model = keras.models.load_model(stage_folder(run, "FineTune") / "model.keras")
    images, labels = training_photos(prepared, max(counts))
    batches = [(images[i : i + BATCH], labels[i : i + BATCH]) for i in range(0, len(images), BATCH)]
    dependencies = build_dependencies(flat_copy(model, read(model)))
    selection, target = Selection(round_to=ROUND_TO), find_target(0.5, None, None, None)
    fewest = min_units(dependencies.groups, selection)
    print_row(name, "whole", 1.0, "", model, prepared)
    for criterion in CRITERIA:
        ranks = rank_groups(dependencies, criterion, batches[:10], normalize=None, seed=0)
        cost = target.removal_cost(dependencies)
        for share in SHARES:
            limit = share * target.cost(dependencies)
            plan = plan_units(
                dependencies, select(dependencies, ranks, cost, limit, fewest, ROUND_TO)
            )
            small = apply_plan(dependencies, plan)
            print_row(name, criterion, share, "as cut", small, prepared)
            shift_statistics(dependencies.model, small, plan, batches[:10])
            print_row(name, criterion, share, "shifted", small, prepared)
            for count in counts:
                small = apply_plan(dependencies, plan)
                start = time.process_time()
                refit_weights(dependencies.model, small, plan, [images[:count]])
                seconds = time.process_time() - start
                how = f"refitted on {count} photos in {seconds:.0f} s of processor time"
                print_row(name, criterion, share, how, small, prepared)


def training_photos(prepared: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first training photos in a random order, half of them mirrored, and their labels."""
    manifest, random = Manifest.load(prepared), np.random.default_rng(0)
    rows, labels = manifest.rows("train"), manifest.labels("train")
    order = random.permutation(len(rows))[:count]
    images = np.load(prepared / "images.npy", mmap_mode="r")[rows[order]].astype("float32")
    mirrored = random.random(len(images)) < 0.5
    images[mirrored] = images[mirrored, :, ::-1]
    return images, labels[order]


def print_row(
    name: str, criterion: str, share: float, how: str, model: keras.Model, prepared: Path
) -> None:
    found = measure(model, prepared)
    figures = f"{found['accuracy']:.1%} {found['calibrated']:.3f}"
    print(f"{name:9} {criterion:14} {share:.0%} {how:45} {figures}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--sets", nargs="+", choices=list(FLIPS), default=["clothing", "cifar10"])
    parser.add_argument("--photos", nargs="+", type=int, default=[320, 1000])
    asked = parser.parse_args()
    for name in asked.sets:
        compare(name, asked.folder, asked.weights, asked.photos)


if __name__ == "__main__":
    main()
