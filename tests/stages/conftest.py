"""Single stages run on the drawn photos and on toy models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import pytest

import kpipe.train
from kpipe.core.journal import Event, Journal, read_journal
from kpipe.core.stage import Context, Stage
from kpipe.stages import Data
from kpipe.stages.photos.photo_dataset import PhotoDataset
from kpipe.stages.shared.model_folder import reset_keras, save_model
from tests.walking import draw

RECIPE: dict[str, Any] = {
    "backbone": "MobileNet",
    "alpha": 0.25,
    "weights": None,
    "retrain_last": None,
    "dropout": 0.0,
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "switch_to": None,
    "switch_when": "plateau",
    "switch_learning_rate": None,
    "schedule": "constant",
    "epochs": 1,
    "batch_size": 8,
}

Perform = Callable[..., tuple[Path, list[Event]]]


def toy(seed: int, classes: int = 3) -> keras.Model:
    """Return a tiny network for the drawn photos; its outputs differ from photo to photo."""
    pixels = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(pixels)
    start = keras.initializers.GlorotUniform(seed)
    x = keras.layers.Conv2D(8, 3, strides=2, kernel_initializer=start)(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    start = keras.initializers.RandomNormal(0, 8, seed)
    return keras.Model(
        pixels, keras.layers.Dense(classes, activation="softmax", kernel_initializer=start)(x)
    )


def toy_folder(folder: Path, seed: int, title: str = "toy") -> Path:
    """Write a model folder with a toy network."""
    folder.mkdir(parents=True, exist_ok=True)
    reset_keras(seed)
    (folder / "history.json").write_text(f'[{{"title": "{title}"}}]')
    save_model(toy(seed), folder, title=title, recipe=RECIPE)
    return folder


@pytest.fixture
def perform(tmp_path: Path) -> Perform:
    """Return a function: `perform(stage, data=folder, ...)` -> its folder and its events."""

    def run(
        stage: Stage,
        seed: int = 3,
        into: Path | None = None,
        shared: Path | None = None,
        **inputs: Path | list[Path],
    ) -> tuple[Path, list[Event]]:
        folder = into or tmp_path / stage.name
        folder.mkdir(parents=True, exist_ok=True)
        journal = Journal(tmp_path / f"{stage.name}.jsonl", (), stage.name)
        stage.run(Context(folder, given(inputs), seed, journal, shared))
        return folder, read_journal(journal.path) if journal.path.exists() else []

    return run


def given(inputs: Mapping[str, Path | list[Path]]) -> dict[str, tuple[Path, ...]]:
    absent: dict[str, tuple[Path, ...]] = {"ensemble": (), "balance": (), "augmentation": ()}
    found = {k: tuple(v) if isinstance(v, list) else (v,) for k, v in inputs.items()}
    return {**absent, **found}


@pytest.fixture
def taught(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[keras.Model], Any]], list[Any]]:
    """Return a function: `taught(of)` -> a list, one row for each Distiller that is created.

    A row is (of(student), of(teacher), named arguments) before the training.
    """

    def record(of: Callable[[keras.Model], Any]) -> list[Any]:
        found, real = [], kpipe.train.Distiller

        def recorded(student: keras.Model, teacher: keras.Model, *given: Any, **named: Any) -> Any:
            features = {"feature_teacher": of(named["feature_teacher"])}
            found.append((of(student), of(teacher), {**named, **features}))
            return real(student, teacher, *given, **named)

        monkeypatch.setattr(kpipe.train, "Distiller", recorded, raising=False)
        return found

    return record


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of Data for the drawn photos."""
    base = tmp_path_factory.mktemp("data")
    stage = Data(str(draw(base / "photos")), image_size=32, split=(0.6, 0.2, 0.2))
    (base / "made").mkdir()
    stage.run(Context(base / "made", {}, 3, Journal(base / "journal.jsonl")))
    return base / "made"


@pytest.fixture
def photos(data_folder: Path, tmp_path: Path) -> PhotoDataset:
    journal = Journal(tmp_path / "journal.jsonl")
    return PhotoDataset.read(
        Context(tmp_path, given({"data": data_folder}), 3, journal), batch_size=8
    )
