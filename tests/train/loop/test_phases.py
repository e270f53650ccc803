"""Consecutive phases form one training run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kpipe.errors import TrainingError
from kpipe.train import FeatureConfig, Phase, TrainingConfig, fit_phases
from tests.train import tiny

HEAD = Phase(TrainingConfig(epochs=2, learning_rate=0.01), features=FeatureConfig(views=2))
REST = Phase(TrainingConfig(epochs=2, optimizer="sgd", learning_rate=0.01), last=None)


def run(folder: Path | None, *phases: Phase):
    model = tiny.model()
    begun: list[tuple[int, int]] = []

    def begin(number: int, trains) -> tuple[()]:
        begun.append((number, len(trains)))
        return ()

    result = fit_phases(
        model,
        tiny.training_data(tiny.data, tiny.validation()),
        phases,
        folder=folder,
        callbacks=begin,
    )
    return result, tiny.values(model), begun


def test_a_later_phase_starts_from_the_earlier_one(tmp_path: Path) -> None:
    whole, expected, begun = run(tmp_path / "whole", HEAD, REST)
    assert whole.history["phase"] == [1, 1, 2, 2]
    assert begun == [(1, 1), (2, 3)]
    assert len(whole.history["val_loss"]) == 4 and whole.best_epoch in (2, 3)
    first, _, _ = run(tmp_path / "parts", HEAD)
    assert first.history["loss"] == whole.history["loss"][:2]
    second, values, _ = run(tmp_path / "parts", HEAD, REST)
    assert second.resumed_at == 2
    assert second.history == whole.history
    assert all(map(np.array_equal, values, expected))


def test_a_phase_that_makes_the_model_worse_is_discarded(tmp_path: Path) -> None:
    spoiling = Phase(TrainingConfig(epochs=2, optimizer="sgd", learning_rate=30.0), last=None)
    result, values, _ = run(tmp_path / "two", HEAD, spoiling)
    losses = result.history["val_loss"]
    assert min(losses[:2]) < min(losses[2:])
    assert result.best_epoch == int(np.argmin(losses))
    alone, expected, _ = run(tmp_path / "one", HEAD)
    assert result.best_epoch == alone.best_epoch
    assert all(map(np.array_equal, values, expected))


def test_invalid_phases_are_rejected() -> None:
    with pytest.raises(TrainingError, match="no phases"):
        run(None)
    with pytest.raises(TrainingError, match="need a folder"):
        run(None, HEAD)
    smoothed = Phase(TrainingConfig(epochs=1, label_smoothing=0.3), last=None)
    with pytest.raises(TrainingError, match="cannot be compared"):
        run(None, smoothed, REST)
