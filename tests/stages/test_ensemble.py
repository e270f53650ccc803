from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kpipe.prune import count_macs
from kpipe.stages import Augment, Ensemble
from kpipe.stages import ensemble as module
from kpipe.stages.shared.model_folder import load_model, read_metadata
from kpipe.stages.shared.photo_dataset import PhotoDataset
from kpipe.stages.shared.training_run import TrainingRun
from tests.stages.conftest import RECIPE, toy, toy_folder

PIXELS = np.random.default_rng(0).uniform(0, 255, (40, 32, 32, 3)).astype("float32")


def made_of(perform, data_folder: Path, tmp_path: Path, members: int, combine: str) -> Path:
    """An ensemble of toys that are trained already: as after a kill before the combination."""
    first = toy_folder(tmp_path / "first", seed=1)
    for number in range(2, members + 1):
        toy_folder(tmp_path / "Ensemble" / f"member-{number}", seed=number)
    stage = Ensemble(members=members, combine=combine)
    return perform(stage, data=data_folder, model=first)[0]


def answers(members: int) -> np.ndarray:
    """(members, images, classes)."""
    return np.stack([toy(seed)(PIXELS).numpy() for seed in range(1, members + 1)])


def test_the_average_is_the_mean_of_the_members(perform, data_folder: Path, tmp_path: Path) -> None:
    folder = made_of(perform, data_folder, tmp_path, 3, "average")
    expected = answers(3).mean(axis=0)
    np.testing.assert_allclose(load_model(folder)(PIXELS), expected, atol=1e-6)
    assert read_metadata(folder)["title"] == "ensemble of 3 (average)"


def test_the_vote_is_the_share_of_members(perform, data_folder: Path, tmp_path: Path) -> None:
    folder = made_of(perform, data_folder, tmp_path, 3, "vote")
    votes = np.eye(3)[answers(3).argmax(axis=2)].mean(axis=0)
    found = load_model(folder)(PIXELS).numpy()
    assert len(np.unique(votes.max(axis=1))) > 1, "members that always agree prove nothing"
    np.testing.assert_allclose(found, votes, atol=0.0101)


def test_its_cost_is_the_sum_of_the_members(perform, data_folder: Path, tmp_path: Path) -> None:
    folder = made_of(perform, data_folder, tmp_path, 2, "average")
    assert read_metadata(folder)["macs"] == 2 * count_macs(toy(1))
    titles = [row["title"] for row in json.loads((folder / "history.json").read_text())]
    assert titles == ["toy"]


def test_each_further_member_has_its_own_seed_and_strength_of_augmentation(
    perform, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[PhotoDataset] = []

    def train(recipe: Any, photos: PhotoDataset, run: TrainingRun) -> None:
        trained.append(photos)
        toy_folder(run.folder, photos.seed)

    monkeypatch.setattr(module, "train_network", train)
    augmentation, _ = perform(Augment(rotate=0.1, brightness=0.2), data=data_folder)
    first = toy_folder(tmp_path / "first", seed=1)
    perform(Ensemble(members=4), data=data_folder, model=first, augmentation=augmentation)
    assert len(trained) == 3
    assert len({photos.seed for photos in trained} | {3}) == 4
    assert {photos.batch_size for photos in trained} == {RECIPE["batch_size"]}
    strengths = [photos.augmenter.rotate / 0.1 for photos in trained if photos.augmenter]
    assert len(set(strengths)) == 3
    assert min(strengths) < 1 < max(strengths)
    assert all(0.5 <= strength <= 1.5 for strength in strengths)
    orders = [next(iter(p.training_dataset(0)))[1].numpy().tolist() for p in trained]
    assert len(set(map(tuple, orders))) > 1


def test_the_members_of_a_run_differ_and_average_to_its_ensemble(walk) -> None:
    folder = walk.made_by("Ensemble")
    members = [load_model(walk.made_by("FineTune")), load_model(folder / "member-2")]
    one, other = (model(PIXELS).numpy() for model in members)
    assert np.abs(one - other).max() > 1e-3
    np.testing.assert_allclose(load_model(folder)(PIXELS), (one + other) / 2, atol=1e-6)
    assert not list(folder.rglob("training*")), "checkpoints are left in the result"
