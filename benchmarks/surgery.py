"""Measure how long it takes to plan a removal over every group of filters, and to remove.

    python benchmarks/surgery.py [--rounds 5]

For each architecture of keras.applications (random weights, its usual image size): seconds of
`plan(model, remove=...)` that removes half of every group, these seconds per thousand operations,
and the time of `remove_filters` over that of building the model once, the two in turns. Medians.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kpipe.prune import plan, rank, remove_filters
from kpipe.train import backbone

SIZES = {"ResNet50": 224, "ResNet101": 224, "ResNet152": 224}
SIZES |= {"EfficientNetB0": 224, "EfficientNetB4": 380, "EfficientNetB7": 600}
SIZES |= {"NASNetMobile": 224, "NASNetLarge": 331}


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(name: str, rounds: int) -> str:
    def build() -> keras.Model:
        keras.utils.clear_session()
        return backbone(name, image_size=SIZES[name], weights=None)

    model = build()
    request: dict[str, list[int]] = {}
    groups = rank(model, "random").values()
    for ranking in groups:
        half = np.argsort(ranking.scores)[: len(ranking.scores) // 2]
        request.setdefault(ranking.group.layer, []).extend(ranking.group.channels[half].tolist())
    planned = [seconds(lambda: plan(model, request)) for _ in range(rounds)]
    made = plan(model, request)
    pairs = [(seconds(lambda: remove_filters(model, made)), seconds(build)) for _ in range(rounds)]
    ratios = [removed / built for removed, built in pairs]
    count, median = len(model.operations), float(np.median(planned))
    return (
        f"| {name} | {count} | {len(groups)} | {median:.2f} ({min(planned):.2f} to"
        f" {max(planned):.2f}) | {1e3 * median / count:.2f} | {np.median(ratios):.2f}"
        f" ({min(ratios):.2f} to {max(ratios):.2f}) |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--names", nargs="*", choices=SIZES, default=list(SIZES))
    asked = parser.parse_args()
    print("| model | operations | groups | plan, s | s per 1,000 operations | remove / build |")
    print("|---|---|---|---|---|---|")
    for name in asked.names:
        print(measure(name, asked.rounds), flush=True)


if __name__ == "__main__":
    main()
