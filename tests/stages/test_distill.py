"""Distill: what it trains on, and that it ends the same after an interruption."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import kpipe.stages.distill
import kpipe.train.loop.checkpointer
from kpipe import Pipeline
from kpipe.core.runner import plan
from kpipe.errors import DataError, PipelineError
from kpipe.stages import Data, Distill, Ensemble, Export, FineTune
from kpipe.stages.photos.photo_dataset import PhotoDataset
from kpipe.stages.shared.model_folder import load_model, read_metadata
from kpipe.stages.training.recipe import Recipe
from kpipe.stages.training.training_run import TrainingRun
from tests.stages.conftest import RECIPE, toy_folder
from tests.walking import draw


@pytest.fixture
def more(tmp_path: Path) -> Path:
    """Eleven new photos at two depths, and a file that is none."""
    generator = np.random.default_rng(7)
    for number in range(11):
        path = tmp_path / "more" / ("deep" if number % 2 else "") / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (40, 48, 3)).astype(np.uint8)).save(path)
    (tmp_path / "more" / "notes.txt").write_text("not a photo")
    return tmp_path / "more"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Recipe, PhotoDataset]]:
    """What a student would train by and on; it is not trained."""
    found: list[tuple[Recipe, PhotoDataset]] = []

    def train(recipe: Recipe, photos: PhotoDataset, run: TrainingRun) -> None:
        found.append((recipe, photos))
        toy_folder(run.folder, photos.seed, run.title)

    monkeypatch.setattr(kpipe.stages.distill, "train_network", train)
    return found


def student(**fields: Any) -> Distill:
    return Distill(**{**RECIPE, "cached_views": 0, **fields})


def test_it_learns_from_the_ensemble_by_the_declared_recipe(
    perform, trained: list[Any], data_folder: Path, tmp_path: Path
) -> None:
    model, ensemble = (toy_folder(tmp_path / name, n) for n, name in enumerate("me"))
    folder, events = perform(
        student(teacher="ensemble", epochs=7), data=data_folder, model=model, ensemble=ensemble
    )
    ((recipe, photos),) = trained
    assert type(recipe) is FineTune and recipe == FineTune(
        **{**RECIPE, "cached_views": 0, "epochs": 7}
    )
    images, labels = next(iter(photos.training_dataset(0)))
    hard = labels - 0.8 * np.array(load_model(ensemble)(images))
    np.testing.assert_allclose(np.sort(hard)[:, :2], 0, atol=1e-5)
    assert read_metadata(folder)["title"] == "MobileNet 0.25, distilled"
    assert [e["text"] for e in events if e["event"] == "note"] == ["teacher: toy"]


def test_unlabelled_photos_are_counted_named_and_shown(
    perform, trained: list[Any], data_folder: Path, tmp_path: Path, more: Path
) -> None:
    model = toy_folder(tmp_path / "model", 1)
    folder, events = perform(student(unlabelled=more), data=data_folder, model=model)
    ((_, photos),) = trained
    assert photos.steps_per_epoch == 5 + 2  # 36 and 11 photos in batches of 8
    names = [n for batch in range(7) for n in photos.batch_names(0, batch)]
    assert sorted(n for n in names if str(more) in n) == sorted(map(str, more.rglob("*.png")))
    notes = [event["text"] for event in events if event["event"] == "note"]
    assert f"11 unlabelled photos of {more}" in notes
    assert any(note.startswith("1 x not an image: ") and "notes.txt" in note for note in notes)
    assert "notes.txt" in (folder / "unlabelled.csv").read_text()
    assert not list(folder.glob("training*"))


def test_test_photos_among_them_are_refused(
    perform, trained: list[Any], data_folder: Path, photos: PhotoDataset, tmp_path: Path, more: Path
) -> None:
    tested = photos.manifest.table["path"].iloc[photos.manifest.rows("test")[0]]
    shutil.copy(tested, more / "found.png")
    with pytest.raises(DataError, match="are test photos, or look like one") as caught:
        perform(student(unlabelled=more), data=data_folder, model=toy_folder(tmp_path / "m", 1))
    assert "found.png" in str(caught.value) and not trained


def test_an_empty_folder_is_found_in_the_plan(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    photos = Data(str(draw(tmp_path / "photos")), image_size=32)
    network = FineTune("MobileNet", weights=None)
    stages = [photos, network, student(unlabelled=tmp_path / "empty"), Export()]
    with pytest.raises(DataError, match="is a folder without files"):
        plan(Pipeline("p", stages), tmp_path / "out")


def test_what_cannot_teach_or_train_is_refused_when_declared() -> None:
    photos, network = Data("photos"), FineTune("MobileNet")
    for earlier, stage, words in (
        ([photos], student(), r"add FineTune\(...\) or Ensemble\(...\) before Distill"),
        ([photos, network], student(teacher="ensemble"), r"add Ensemble\(...\) before Distill"),
        (
            [photos, network],
            student(backbone="Xception", alpha=None, low_res_size=64),
            "Xception cannot take",
        ),
        ([photos, network], student(switch_to="sgd", switch_when=9), "switch_when=9"),
    ):
        with pytest.raises(PipelineError, match=words):
            Pipeline("p", [*earlier, stage, Export()])
    Pipeline("p", [photos, network, Ensemble(), student(), Export()])


def test_its_folder_is_a_source() -> None:
    assert student(unlabelled="more").sources() == (Path("more"),)
    assert student(weights="a.h5", unlabelled="more").sources() == (Path("a.h5"), Path("more"))
    assert student().sources() == ()


@pytest.mark.slow
def test_killed_in_any_phase_it_ends_with_the_same_bytes(
    perform, data_folder: Path, tmp_path: Path, more: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = toy_folder(tmp_path / "model", 1)
    stage = student(head_epochs=1, cached_views=1, epochs=2, unlabelled=more)
    whole, _ = perform(stage, data=data_folder, model=model, into=tmp_path / "whole")
    real = kpipe.train.loop.checkpointer.Checkpointer.on_epoch_end
    for _ in range(3):

        def killed(self: Any, *arguments: Any) -> None:
            real(self, *arguments)
            raise KeyboardInterrupt

        with monkeypatch.context() as during:
            during.setattr(kpipe.train.loop.checkpointer.Checkpointer, "on_epoch_end", killed)
            with pytest.raises(KeyboardInterrupt):
                perform(stage, data=data_folder, model=model)
    folder, _ = perform(stage, data=data_folder, model=model)
    assert (folder / "model.keras").read_bytes() == (whole / "model.keras").read_bytes()
    assert (folder / "unlabelled.csv").read_bytes() == (whole / "unlabelled.csv").read_bytes()
