"""About how long a run takes on this machine, before anything is trained.

    work := multiply-accumulates of all passes over the photos; a training step counts as three
    time := work / (speed of a loop over a matrix product * ratio) + fixed parts

The ratio was measured on two cores of x86-64, with EfficientNetLite0 at 224 px and MobileNetV2 0.35
at 96 px. Memory, caches and other processors change it, so the estimate is a range.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from kpipe.stages.training.efforts import epochs_of
from kpipe.starter.choices import Choice
from kpipe.starter.facts import PhotoFacts

__all__ = ["machine_speed", "minutes"]

# Millions of multiply-accumulates at 224 x 224 pixels.
_MACS = {"EfficientNetLite0": 384, "MobileNetV2": 97}
# TensorFlow's kernels over NumPy's loop, and the most cores that a small network keeps busy.
_RATIO, _CORES = 1.4, 8
# Start, tracing of a network, and evaluation and timing of the files: seconds.
_START, _TRAINING, _EXPORT = 20, 25, 40
_LOW, _HIGH = 0.7, 2.0


def machine_speed() -> float:
    """Measure for a fifth of a second: multiply-accumulates that all cores do in a second.

    NumPy's own loop runs on one core, and other programs hardly disturb its fastest repetition.

    Example:
        >>> from kpipe.starter import machine_speed
        >>> machine_speed() > 1e6
        True
    """
    import numpy as np

    side = 128
    matrix = np.ones((side, side), np.float32)
    times: list[float] = []
    start = time.perf_counter()
    while not times or time.perf_counter() - start < 0.2:
        before = time.perf_counter()
        np.einsum("ij,jk->ik", matrix, matrix)
        times.append(time.perf_counter() - before)
    return min(os.cpu_count() or 1, _CORES) * side**3 / min(times)


def minutes(facts: PhotoFacts, choices: Sequence[Choice], speed: float) -> tuple[int, int]:
    """Return about how many minutes a run takes, at least and at most.

    Args:
        facts: about the photos.
        choices: the stages.
        speed: see `machine_speed`.

    Example:
        >>> from kpipe.data import from_folder
        >>> from kpipe.starter import choose, look, minutes
        >>> facts = look(from_folder("photos"))
        >>> minutes(facts, choose(facts, "photos", effort="quick"), speed=1e10)
        (2, 6)
    """
    stages: dict[str, Any] = {choice.stage.name: choice.stage for choice in choices}
    tuning, members = stages["FineTune"], getattr(stages.get("Ensemble"), "members", 1)
    macs = _MACS[tuning.backbone] * 1e6 * (stages["Data"].image_size / 224) ** 2
    training, validation = 0.7 * facts.photos, 0.15 * facts.photos
    epochs = epochs_of(tuning.epochs, max(1, round(training / tuning.batch_size)))
    network = tuning.cached_views * training + epochs * (3 * training + validation)
    passes, fixed = members * network, _START + members * _TRAINING + _EXPORT
    if "FilterPrune" in stages:
        pruning = stages["FilterPrune"]
        rounds = (pruning.rounds - 1) * pruning.epochs_between + pruning.last_epochs
        # The pruned network has between half and all of the work, and its teachers all of it.
        passes += rounds * training * (3 * 0.6 + members)
        fixed += pruning.rounds * _TRAINING
    seconds = passes * macs / (_RATIO * speed) + fixed
    return max(1, round(_LOW * seconds / 60)), max(2, round(_HIGH * seconds / 60))
