"""Which network teaches a stage, and what happens where none can."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import keras
import numpy as np
import pytest

from kpipe import Pipeline
from kpipe.core.journal import Journal, read_journal
from kpipe.core.stage import Context, Stage
from kpipe.errors import PipelineError, TrainingError
from kpipe.stages import (
    ClusterWeights,
    Data,
    Ensemble,
    Export,
    FilterPrune,
    FineTune,
    MagnitudePrune,
    QuantizeAware,
)
from kpipe.stages.compression.teachers import TaughtStage
from kpipe.stages.compression.validation import Validation
from kpipe.stages.photos.photo_dataset import PhotoDataset
from kpipe.stages.shared.model_folder import load_model, reset_keras, save_model
from tests.stages.conftest import RECIPE, given, toy, toy_folder

STAGES = [FilterPrune, MagnitudePrune, ClusterWeights, QuantizeAware]


def context(folder: Path, **inputs: Path) -> Context:
    return Context(folder, given(inputs), 3, Journal(folder / "journal.jsonl", (), "stage"))


def notes(folder: Path) -> list[str]:
    return [e["text"] for e in read_journal(folder / "journal.jsonl") if e["event"] == "note"]


def digest_of(folder: Path) -> str:
    return hashlib.sha256((folder / "model.keras").read_bytes()).hexdigest()


def folder_of(model: keras.Model, folder: Path, title: str) -> Path:
    folder.mkdir(parents=True)
    save_model(model, folder, title=title, recipe=RECIPE)
    return folder


def test_auto_takes_the_one_with_the_lower_cross_entropy_and_says_so(
    photos: PhotoDataset, tmp_path: Path
) -> None:
    folders = [toy_folder(tmp_path / name, n, name) for n, name in enumerate(("one", "two"))]
    losses = [Validation(photos).loss(load_model(folder)) for folder in folders]
    (worse, better), (most, least) = zip(
        *sorted(zip(folders, losses, strict=True), key=lambda pair: -pair[1]), strict=True
    )
    for ensemble, model in ((better, worse), (worse, better)):
        found = FilterPrune().find_teacher(
            context(tmp_path, model=model, ensemble=ensemble), photos
        )
        assert found is not None and found.digest == digest_of(better)
    figures = {worse.name: f"{worse.name} {most:.4f}", better.name: f"{better.name} {least:.4f}"}
    for note in notes(tmp_path):
        assert note.startswith(f"teacher: {better.name}; cross-entropy on validation: ")
        assert all(figure in note for figure in figures.values())


@pytest.mark.parametrize("choice", ["model", "ensemble"])
def test_a_named_teacher_is_taken_whatever_its_loss(
    photos: PhotoDataset, tmp_path: Path, choice: str
) -> None:
    folders = {name: toy_folder(tmp_path / name, n) for n, name in enumerate(("model", "ensemble"))}
    found = QuantizeAware(teacher=choice).find_teacher(context(tmp_path, **folders), photos)
    assert found is not None and found.digest == digest_of(folders[choice])
    assert notes(tmp_path) == ["teacher: toy"]


def test_without_an_ensemble_the_network_teaches_and_without_a_weight_nothing_does(
    photos: PhotoDataset, tmp_path: Path
) -> None:
    model = toy_folder(tmp_path / "model", 1)
    found = FilterPrune().find_teacher(context(tmp_path, model=model), photos)
    assert found is not None and found.digest == digest_of(model)
    for stage in (FilterPrune(teacher=None), FilterPrune(soft_target_weight=0)):
        assert stage.find_teacher(context(tmp_path, model=model), photos) is None


@pytest.mark.parametrize("kind", STAGES)
def test_an_ensemble_that_nothing_makes_is_refused(kind: type[Stage]) -> None:
    photos, network = Data("photos"), FineTune("MobileNet")
    stage = kind(teacher="ensemble")  # type: ignore[call-arg]
    with pytest.raises(
        PipelineError, match=r'teacher="ensemble": no earlier stage makes one; add Ensemble'
    ):
        Pipeline("p", [photos, network, stage, Ensemble(), Export()])
    Pipeline("p", [photos, network, Ensemble(), stage, Export()])


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (FilterPrune(teacher="ensemble", soft_target_weight=0), "soft_target_weight=0"),
        (FilterPrune(teacher="ensemble", soft_target_weight=0, feature_weight=1), "weight=0"),
        (FilterPrune(teacher=None, feature_weight=1), "feature_weight=1: has no effect"),
        (QuantizeAware(teacher="model", soft_target_weight=0), "teacher='model'"),
        (MagnitudePrune(teacher="ensemble", last_epochs=0), "last_epochs=0"),
    ],
)
def test_a_teacher_without_effect_is_refused(stage: Stage, words: str) -> None:
    (error,) = stage.validation_errors()
    assert words in error


def test_a_teacher_of_other_classes_is_refused(photos: PhotoDataset, tmp_path: Path) -> None:
    four = folder_of(toy(1, classes=4), tmp_path / "four", "ensemble of 2 (average)")
    stage = FilterPrune(teacher="ensemble")
    with pytest.raises(
        TrainingError, match=re.escape("ensemble of 2 (average), has other classes")
    ) as caught:
        stage.find_teacher(context(tmp_path, ensemble=four), photos)
    assert "3 classes: blue, green, red" in str(caught.value)


def test_an_ensemble_of_larger_photos_is_shown_them_enlarged(
    photos: PhotoDataset, tmp_path: Path
) -> None:
    reset_keras(0)
    pixels = keras.Input((48, 48, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(pixels))
    large = keras.Model(pixels, keras.layers.Dense(3, "softmax")(x))
    folder = folder_of(large, tmp_path / "large", "large")
    found = FilterPrune(teacher="ensemble").find_teacher(context(tmp_path, ensemble=folder), photos)
    images, _ = next(iter(photos.evaluation_dataset("validation")))
    expected = large(keras.ops.image.resize(images, (48, 48)))
    assert found is not None
    np.testing.assert_allclose(found.model(images), expected, atol=1e-5)


QUICK = {"rounds": 1, "last_epochs": 1, "round_to": 2, "batch_size": 12, "learning_rate": 1e-9}


@pytest.mark.slow
@pytest.mark.parametrize("feature_weight", [0.0, 5.0])
def test_a_pruned_network_learns_from_the_ensemble_and_features_from_the_network(
    perform, taught, data_folder: Path, tmp_path: Path, feature_weight: float
) -> None:
    found = taught(lambda model: len(model.layers) if model.count_params() else 0)
    reset_keras(2)
    pixels = keras.Input((32, 32, 3))
    ensemble = keras.Model(pixels, keras.layers.Average()([toy(1)(pixels), toy(2)(pixels)]))
    folder = folder_of(ensemble, tmp_path / "both", "ensemble of 2 (average)")
    model = toy_folder(tmp_path / "toy", 1)
    stage = FilterPrune(macs=0.6, teacher="ensemble", feature_weight=feature_weight, **QUICK)
    _, events = perform(stage, data=data_folder, model=model, ensemble=folder)
    ((_, teacher, named),) = found
    assert (teacher, named["feature_teacher"]) == (len(ensemble.layers), len(toy(1).layers))
    assert any(e.get("text") == "teacher: ensemble of 2 (average)" for e in events)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ClusterWeights, QuantizeAware])
def test_training_by_tfmot_learns_from_the_ensemble(
    perform, data_folder: Path, tmp_path: Path, kind: type[TaughtStage]
) -> None:
    model, ensemble = (toy_folder(tmp_path / name, n) for n, name in enumerate("mt"))
    learned = []
    for choice in ("ensemble", None):
        stage = kind(epochs=1, learning_rate=0.01, batch_size=12, teacher=choice)  # type: ignore[call-arg]
        folder, _ = perform(
            stage, data=data_folder, model=model, ensemble=ensemble, into=tmp_path / str(choice)
        )
        photo = np.load(data_folder / "images.npy")[:16].astype("float32")
        learned.append(np.array(load_model(folder)(photo)))
    target = np.array(load_model(ensemble)(photo))
    assert np.abs(learned[0] - target).mean() < np.abs(learned[1] - target).mean()


def test_an_ensemble_is_read_only_by_those_that_may_learn_from_it() -> None:
    assert "ensemble?" in FilterPrune().effective_needs
    assert "ensemble?" not in FilterPrune(teacher=None).effective_needs
    assert "ensemble?" not in FilterPrune(teacher="model").effective_needs
