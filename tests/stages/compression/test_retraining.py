"""The retraining of a network that has lost filters."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from kpipe.core.journal import Journal, read_journal
from kpipe.stages.compression.retraining import (
    Lesson,
    retrain,
    retraining_rate,
    unfreeze_but_normalization,
)
from kpipe.stages.photos.photo_dataset import PhotoDataset
from kpipe.stages.photos.validation import Validation
from kpipe.stages.training.training_run import TrainingRun
from tests.stages.conftest import toy


@pytest.mark.parametrize(("frozen", "rate"), [(False, 5e-4), (True, 1e-4)])
def test_frozen_normalization_needs_a_low_rate(frozen: bool, rate: float) -> None:
    layers = [keras.layers.Conv2D(2, 1), keras.layers.BatchNormalization()]
    model = keras.Sequential([keras.Input((4, 4, 3)), *layers])
    model.trainable = not frozen
    unfreeze_but_normalization(model)
    assert layers[0].trainable and layers[1].trainable is not frozen
    assert retraining_rate(model, None) == rate
    assert retraining_rate(model, 0.1) == 0.1
    assert retraining_rate(model, None, frozen=3e-4) == (3e-4 if frozen else 5e-4)


@pytest.mark.parametrize(("learning_rate", "improves"), [(1e-2, True), (1e3, False)])
def test_the_network_before_is_kept_where_no_epoch_is_better(
    photos: PhotoDataset, tmp_path: Path, learning_rate: float, improves: bool
) -> None:
    model = toy(1)
    model.layers[-1].set_weights([np.zeros_like(w) for w in model.layers[-1].get_weights()])
    before, loss = model.get_weights(), Validation(photos).loss(model)
    journal = Journal(tmp_path / "retraining.jsonl")
    run = TrainingRun("round 1", tmp_path / "training", journal)
    lesson = Lesson(None, model, 0.0, 0.0)
    retrain(model, lesson, photos, run, epochs=2, learning_rate=learning_rate)
    equal = [np.array_equal(*pair) for pair in zip(before, model.get_weights(), strict=True)]
    assert all(equal) is not improves
    assert (Validation(photos).loss(model) < loss) is improves
    (row,) = json.loads((run.folder / "history.json").read_text())
    assert (row["best_epoch"] is not None) is improves
    notes = [event["text"] for event in read_journal(journal.path) if event["event"] == "note"]
    assert ("round 1: kept what it began with" in notes) is not improves
