"""One member of each family of keras.applications, pruned: exact, and an ordinary model afterwards.

`benchmarks/coverage.py` checks the other members the same way.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kpipe.lite import LiteModel, convert
from kpipe.prune import Plan, count_macs, plan, prunable_fraction, remove_filters
from kpipe.train import backbone, classifier
from tests.prune.masking import colored, random_request, randomize, settle, worst_difference

# Name -> (options, pixels of a side, minimum prunable fraction).
FAMILIES: dict[str, tuple[dict[str, Any], int, float]] = {
    "ConvNeXtTiny": ({}, 32, 0.90),
    "DenseNet121": ({}, 32, 0.95),
    "EfficientNetB0": ({}, 32, 0.95),
    "EfficientNetLite0": ({}, 32, 0.95),
    "EfficientNetV2B0": ({}, 32, 0.95),
    "InceptionResNetV2": ({}, 75, 0.90),
    "InceptionV3": ({}, 75, 0.99),
    "MobileNet": ({"alpha": 0.25}, 32, 0.95),
    "MobileNetV2": ({"alpha": 0.35}, 32, 0.95),
    "MobileNetV3Small": ({}, 32, 0.90),
    "NASNetMobile": ({}, 32, 0.80),
    "ResNet50": ({}, 32, 0.99),
    "ResNet50V2": ({}, 32, 0.99),
    "VGG16": ({}, 32, 0.99),
    "Xception": ({}, 71, 0.95),
}


# KPIPE_EVERY_BACKBONE=1 cuts the largest, too.
MEMBERS = [
    name
    for name in FAMILIES
    if name != "InceptionResNetV2" or os.environ.get("KPIPE_EVERY_BACKBONE")
]


def cut(name: str) -> tuple[keras.Model, keras.Model, Plan]:
    """The flat network with random weights, what a random plan leaves of it, and the plan."""
    options, size, share = FAMILIES[name]
    base = backbone(name, image_size=size, weights=None, **options)
    model = classifier(base, 3, dropout=0.0)
    assert prunable_fraction(model) >= share
    flat = randomize(remove_filters(model, plan(model, {})), 3)  # nested models are opened
    made = plan(flat, random_request(flat, 3))
    return flat, remove_filters(flat, made), made


@pytest.mark.slow
@pytest.mark.parametrize("name", MEMBERS)
def test_it_is_cut_exactly_and_an_ordinary_model_is_left(name: str, tmp_path: Path) -> None:
    flat, small, made = cut(name)
    images = colored(8, FAMILIES[name][1])
    assert worst_difference(flat, small, made.kept, images[:2]) < 1e-4
    assert made.macs_before is not None
    assert count_macs(small) == made.macs_after < 0.8 * made.macs_before
    small.compile(keras.optimizers.SGD(1e-6), "sparse_categorical_crossentropy", run_eagerly=True)
    before = [weight.numpy() for weight in small.weights]
    small.train_on_batch(images, np.arange(8) % 3)
    moved = [not np.array_equal(a, b.numpy()) for a, b in zip(before, small.weights, strict=True)]
    assert sum(moved) > len(moved) / 2
    answers = settle(small, images)
    assert np.ptp(answers, axis=0).max() > 0.1
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras", compile=False)
    np.testing.assert_allclose(again(images), answers, rtol=1e-5, atol=1e-6)
    found = LiteModel(convert(again)).predict(images)
    np.testing.assert_allclose(found, answers, atol=1e-4)
