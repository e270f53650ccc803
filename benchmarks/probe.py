"""Measure what a logistic regression on frozen features reaches: the least a fine-tuning should.

    python benchmarks/probe.py PHOTOS --weights FILE [--sets clothing tiles] [--size 160]

PHOTOS and FILE as for `outcome.py`, whose splits these are. The features are those of MobileNetV2
0.35, without augmentation, standardized by the training photos. The regression is scikit-learn's,
with balanced class weights for the tiles, as in `outcome.py`; its strength of regularization has
the lowest cross-entropy on validation. The test photos are looked at once, by the one that is
chosen.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from outcome import SETS, listed
from recipes import stage_folder
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss
from sklearn.pipeline import Pipeline as Steps
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kpipe import Pipeline
from kpipe.core.runner import run
from kpipe.data import Manifest
from kpipe.stages import Data
from kpipe.train import backbone, folded_inference

STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
Split = tuple[np.ndarray, np.ndarray]


def features(photos: Path, name: str, size: int, weights: str) -> dict[str, Split]:
    """Return (features, labels) of each split."""
    data = Data(str(listed(photos, name)), image_size=size, image="path", label="label")
    prepared = run(Pipeline(f"{name}-data", [data]), photos / "outcome").folder
    folder = stage_folder(prepared, "Data")
    manifest, images = Manifest.load(folder), np.load(folder / "images.npy", mmap_mode="r")
    predict = folded_inference(
        backbone("MobileNetV2", alpha=0.35, image_size=size, weights=weights)
    )
    found = {}
    for part in ("train", "validation", "test"):
        rows = manifest.rows(part)
        maps = [
            predict(images[rows[at : at + 64]].astype("float32")).numpy()
            for at in range(0, len(rows), 64)
        ]
        pooled = np.concatenate(maps)
        pooled = pooled.mean(axis=(1, 2)) if pooled.ndim == 4 else pooled
        found[part] = pooled, manifest.labels(part)
    return found


def fitted(splits: dict[str, Split], strength: float, balanced: bool) -> Steps:
    regression = LogisticRegression(
        C=strength, max_iter=2000, class_weight="balanced" if balanced else None
    )
    return make_pipeline(StandardScaler(), regression).fit(*splits["train"])


def scores(model: Steps, split: Split) -> dict[str, float]:
    x, y = split
    probabilities = model.predict_proba(x)
    return {
        "cross-entropy": log_loss(y, probabilities, labels=model.classes_),
        "accuracy": accuracy_score(y, probabilities.argmax(1)),
        "balanced": balanced_accuracy_score(y, probabilities.argmax(1)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--size", type=int, default=160)
    asked = parser.parse_args()
    for name in asked.sets:
        splits = features(asked.photos, name, asked.size, asked.weights)
        models = {one: fitted(splits, one, name == "tiles") for one in STRENGTHS}
        best = min(
            models, key=lambda one: scores(models[one], splits["validation"])["cross-entropy"]
        )
        for part in ("validation", "test"):
            found = scores(models[best], splits[part])
            shown = ", ".join(f"{title} {value:.3f}" for title, value in found.items())
            print(f"{name}, C={best:g}, {len(splits[part][1])} {part} photos: {shown}")


if __name__ == "__main__":
    main()
