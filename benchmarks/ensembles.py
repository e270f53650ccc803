"""Measure what an ensemble of heads on shared frozen features costs and brings.

    python benchmarks/ensembles.py PHOTOS [--backbone EfficientNetLite0] [--weights FILE]
        [--members 5] [--size 96] [--seeds 1]

PHOTOS holds train/, validation/ and test/ with a folder per class. Without a backbone, the network
is MobileNetV2 0.35, and FILE holds its weights without its top. The head alone trains for 20 epochs
on the features of 4 augmented views (the defaults of FineTune); the test split is not used.

    time    of FineTune and Ensemble together over that of FineTune: processor seconds, which other
            programs on the machine change less than seconds of a clock
    table   each member and each combination on validation, how far members disagree, and the
            accuracy of an oracle, which takes a member that is right wherever there is one

Each seed starts without results, so that FineTune computes the features.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from kpipe import Pipeline
from kpipe.core.journal import Event
from kpipe.core.runner import run
from kpipe.stages import Augment, Data, Ensemble, FineTune


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--backbone")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--vary", default="seed", choices=("seed", "resample"))
    parser.add_argument("--seeds", type=int, default=1)
    asked = parser.parse_args()
    ratios = []
    for seed in range(asked.seeds):
        with tempfile.TemporaryDirectory() as root:
            seconds, report = measured(asked, seed, Path(root))
        ratios.append(sum(seconds.values()) / seconds["FineTune"])
        print(f"seed {seed}: {seconds}, {ratios[-1]:.2f} times the time of one network")
        print(table(report))
    print(f"{asked.members} members over one: {np.median(ratios):.2f} times the time")


def measured(asked: argparse.Namespace, seed: int, root: Path) -> tuple[dict[str, float], Any]:
    """Return the seconds of the two stages, and the content of `ensemble.json`."""
    small: dict[str, Any] = {"backbone": "MobileNetV2", "alpha": 0.35}
    network = {"backbone": asked.backbone} if asked.backbone else small
    stages = [
        Data(str(asked.photos), image_size=asked.size),
        Augment(flip="horizontal", rotate=0.05, crop=0.8, brightness=0.1, contrast=0.2),
        FineTune(**network, weights=asked.weights, retrain_last=0),
        Ensemble(asked.members, combine="greedy", vary=asked.vary),
    ]
    seconds: dict[str, float] = {}

    def hear(event: Event) -> None:
        if event["event"] in ("stage_started", "stage_finished") and event["stage"] in names:
            sign = 1 if event["event"] == "stage_finished" else -1
            seconds[event["stage"]] = seconds.get(event["stage"], 0) + sign * time.process_time()

    names = ("FineTune", "Ensemble")
    run(Pipeline("ensembles", stages, seed=seed), root, listeners=(hear,))
    (report,) = root.glob(".cache/*/ensemble.json")
    return {name: round(value, 1) for name, value in seconds.items()}, json.loads(
        report.read_text()
    )


def table(report: Any) -> str:
    """Return the members and combinations as Markdown."""
    rows = [(row["title"], row["loss"], row["accuracy"]) for row in report["members"]]
    rows += [(row["name"], row["loss"], row["accuracy"]) for row in report["combinations"]]
    members = len(report["members"])
    pairs = np.array(report["disagreement"])[np.triu_indices(members, 1)]
    lines = [f"| {name} | {loss:.4f} | {accuracy:.1%} |" for name, loss, accuracy in rows]
    return "\n".join(
        [
            f"| on {report['photos']} validation photos | cross-entropy | accuracy |",
            "|---|---|---|",
            *lines,
            f"| oracle | | {report['oracle']:.1%} |",
            f"two members disagree on {pairs.mean():.1%}; chosen: {report['chosen']}",
        ]
    )


if __name__ == "__main__":
    main()
