"""Members that are really trained: they share features, and resume where a run was killed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kpipe.core.journal import Event, Journal
from kpipe.core.stage import Context
from kpipe.stages import Ensemble, FineTune
from kpipe.stages.photos.photo_dataset import PhotoDataset
from kpipe.stages.shared.model_folder import load_model
from kpipe.train.transfer.feature_writer import FeatureWriter
from tests.stages.conftest import given

HEAD = FineTune("MobileNet", alpha=0.25, retrain_last=0, epochs=3, batch_size=8, cached_views=1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    keras.utils.set_random_seed(0)
    base = keras.applications.MobileNet((32, 32, 3), 0.25, include_top=False, weights=None)
    path = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    base.save_weights(path)
    return str(path)


@pytest.mark.slow
def test_members_share_the_features_of_a_frozen_backbone(
    data_folder: Path, tmp_path: Path, perform, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    real = FeatureWriter.write

    def write(self: FeatureWriter, name: str, *rest: Any) -> None:
        written.append(name)
        real(self, name, *rest)

    monkeypatch.setattr(FeatureWriter, "write", write)
    recipe = dataclasses.replace(HEAD, weights=weights)
    stage = Ensemble([recipe] * 2, vary=("seed", "resample"))
    folder, _ = perform(stage, data=data_folder, shared=tmp_path / "shared")
    assert written == ["view-000", "validation"]
    images = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3)).astype("float32")
    one, other = (load_model(folder / f"member-{number}")(images).numpy() for number in (1, 2))
    assert np.abs(one - other).max() > 1e-3
    report = json.loads((folder / "ensemble.json").read_text())
    weights_of = [row["weight"] for row in report["members"]]
    expected = weights_of[0] * one + weights_of[1] * other
    np.testing.assert_allclose(load_model(folder)(images), expected, atol=1e-6)


@pytest.mark.slow
def test_the_rows_of_a_bootstrap_sample_are_those_of_its_photos(photos: PhotoDataset) -> None:
    from kpipe.data.loading.epochs import bootstrap_counts

    varied = dataclasses.replace(photos, seed=9, bootstrap=5, feature_source=photos)
    rows = varied.feature_rows(2)
    assert rows is not None
    expected = bootstrap_counts(photos.manifest, "train", 5)
    assert rows.shape == (2, len(expected))
    names = photos.manifest.table["path"].to_numpy()[photos.manifest.rows("train")]
    for epoch, of_view in enumerate(rows):
        order = [
            name
            for batch in range(photos.steps_per_epoch)
            for name in photos.batch_names(epoch, batch)
        ]
        drawn = [order[row] for row in of_view]
        assert [drawn.count(str(name)) for name in names] == expected.tolist()
    assert photos.feature_rows(2) is None


@pytest.mark.slow
def test_a_run_killed_in_the_third_member_ends_in_the_same_bytes(
    data_folder: Path, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(HEAD, weights=None, retrain_last=None, epochs=2)
    stage = Ensemble([recipe] * 3, combine="weighted")

    def carry_out(folder: Path, *listeners: Any) -> None:
        folder.mkdir(exist_ok=True)
        journal = Journal(tmp_path / f"{folder.name}.jsonl", listeners, "Ensemble")
        stage.run(Context(folder, given({"data": data_folder}), 3, journal))

    def kill(event: Event) -> None:
        if event["event"] == "epoch" and event["what"].startswith("member 3"):
            raise KeyboardInterrupt

    carry_out(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        carry_out(tmp_path / "killed", kill)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("*/model.keras")}
    assert [path.parent.name for path in sorted(before)] == ["member-1", "member-2"]
    carry_out(tmp_path / "killed")
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    files = sorted(
        path.relative_to(tmp_path / "whole")
        for path in (tmp_path / "whole").rglob("*")
        if path.is_file()
    )
    assert len([path for path in files if path.name == "model.keras"]) == 5
    for path in files:
        same = (tmp_path / "killed" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()
        assert same, path
