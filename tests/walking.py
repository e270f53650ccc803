"""A tiny pipeline of eight stages, and the drawn photos that it runs on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COUNTS = {"blue": (24, (40, 60, 200)), "green": (20, (40, 180, 60)), "red": (16, (200, 50, 40))}
DECLARATION = """
from kpipe import Pipeline
from kpipe.stages import (
    Augment, Balance, Data, Ensemble, Export, FilterPrune, FineTune, MagnitudePrune
)

pipeline = Pipeline(
    "tiny",
    [
        Data({source!r}, image_size=32, split=(0.6, 0.2, 0.2), max_unreadable=0.1),
        Balance("class_weight"),
        Augment(flip="horizontal", rotate=0.05, brightness=0.1, crop=0.9),
        FineTune(
            "MobileNet", alpha=0.25, weights=None, retrain_last=None, learning_rate=3e-3,
            switch_to="sgd", switch_when=2, epochs=4, batch_size=12,
        ),
        Ensemble(members=2),
        FilterPrune(macs=0.6, rounds=1, last_epochs=2, batch_size=12),
        MagnitudePrune(sparsity=0.5, epochs=1, last_epochs=1, batch_size=12),
        Export(tolerance=1.0, int8_tolerance=1.0, calibration=12),
    ],
    seed=3,
)
"""


def draw(folder: Path, counts: dict[str, int] | None = None) -> Path:
    """Draw noisy photos of one color for each class, as `folder/class/number.png`."""
    generator = np.random.default_rng(0)
    for name, (count, color) in COUNTS.items():
        for number in range((counts or {}).get(name, count)):
            path = folder / name / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = generator.normal(0, 30, (40, 48, 3)) + color
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return folder


def declare(path: Path, source: Path) -> Path:
    """Write a pipeline file for a folder of photos."""
    path.write_text(DECLARATION.format(source=str(source)))
    return path
