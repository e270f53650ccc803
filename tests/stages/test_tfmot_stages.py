from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kpipe.stages.magnitude_prune
from kpipe.core.stage import Stage
from kpipe.sparsity import measure_sparsity
from kpipe.stages import ClusterWeights, MagnitudePrune, QuantizeAware
from kpipe.stages.compression.retraining import unfreeze_but_normalization
from kpipe.stages.shared.model_folder import load_model, reset_keras, save_model
from tests.stages.conftest import RECIPE, toy, toy_folder

QUICK: dict[str, Any] = {"sparsity": 0.75, "epochs": 1, "batch_size": 4}


def losses(folder: Path) -> list[float]:
    (row,) = json.loads((folder / "history.json").read_text())
    return row["history"]["loss"]


def kernels(model: keras.Model) -> list[np.ndarray]:
    return [np.array(v) for v in model.trainable_variables if v.name == "kernel"]


def changed(folder: Path, change: Callable[[keras.Model], keras.Model | None]) -> Path:
    """A model folder with a toy that was changed, or one made of it."""
    reset_keras(1)
    model = toy(1)
    folder.mkdir()
    (folder / "history.json").write_text("[]")
    save_model(change(model) or model, folder, title="changed", recipe=RECIPE)
    return folder


def test_zeros_stay_where_they_are_while_the_rest_is_trained_further(
    perform, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, real = [], kpipe.stages.magnitude_prune.retrain

    def recorded(model: keras.Model, *given: Any, **named: Any) -> None:
        begun.extend(kernels(model))
        real(model, *given, **named)

    monkeypatch.setattr(kpipe.stages.magnitude_prune, "retrain", recorded)
    stage = MagnitudePrune(last_epochs=3, learning_rate=0.01, **QUICK)
    folder, _ = perform(stage, data=data_folder, model=toy_folder(tmp_path / "toy", 1))
    assert len(losses(folder)) == 3
    assert not list(folder.glob("training*"))
    for before, after in zip(begun, kernels(load_model(folder)), strict=True):
        assert (before == 0).mean() == pytest.approx(0.75, abs=0.05)
        np.testing.assert_array_equal(after == 0, before == 0)
        assert (after != before)[before != 0].any()


def test_without_epochs_after_them_the_zeros_are_those_of_tfmot(
    perform, data_folder: Path, tmp_path: Path
) -> None:
    stage = MagnitudePrune(last_epochs=0, **QUICK)
    folder, _ = perform(stage, data=data_folder, model=toy_folder(tmp_path / "toy", 1))
    assert not (folder / "history.json").exists()
    assert min(measure_sparsity(load_model(folder)).values()) > 0.7


def test_a_share_of_zeros_that_rounds_to_none_is_told(
    perform, data_folder: Path, tmp_path: Path
) -> None:
    stage = MagnitudePrune(**{**QUICK, "sparsity": 0.001}, last_epochs=0)
    _, events = perform(stage, data=data_folder, model=toy_folder(tmp_path / "toy", 1))
    assert events[-1]["text"] == "no kernel reached the sparsity: nothing is gained"


def test_features_without_the_epochs_that_they_weigh_in_are_a_contradiction() -> None:
    (problem,) = MagnitudePrune(last_epochs=0, feature_weight=5.0).validation_errors()
    assert "feature_weight=5.0" in problem and "last_epochs" in problem
    assert not MagnitudePrune(last_epochs=0).validation_errors()


@pytest.mark.slow
def test_the_epochs_after_the_zeros_learn_from_the_network_without(
    perform, taught, data_folder: Path, tmp_path: Path
) -> None:
    source = toy_folder(tmp_path / "toy", 1)
    found = taught(measure_sparsity)
    first = []
    for answers in (3.0, 0.0):
        stage = MagnitudePrune(
            last_epochs=1, soft_target_weight=answers, learning_rate=1e-9, **QUICK
        )
        folder, _ = perform(stage, data=data_folder, model=source, into=tmp_path / str(answers))
        first.append(losses(folder)[0])
    ((student, teacher, asked),) = found
    assert min(student.values()) > 0.7 and max(teacher.values()) < 0.1
    asked.pop("feature_teacher")
    assert asked == {"soft_target_weight": 3.0, "feature_weight": 0.0}
    assert first[0] != pytest.approx(first[1], rel=1e-2)


@pytest.mark.slow
def test_two_of_four_stay_two_of_four(perform, data_folder: Path, tmp_path: Path) -> None:
    source = toy_folder(tmp_path / "toy", 1)
    stage = MagnitudePrune(last_epochs=1, **{**QUICK, "sparsity": "2 by 4"})
    folder, events = perform(stage, data=data_folder, model=source)
    (kernel,) = (k for k in kernels(load_model(folder)) if k.ndim == 2)
    rows = kernel.T.reshape(-1, 4)
    assert ((rows == 0).sum(axis=1) == 2).all()
    assert any("zeros: a smaller download" in event.get("text", "") for event in events)


@pytest.mark.slow
def test_cut_off_between_the_two_trainings_it_ends_the_same(
    perform, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dropping(model: keras.Model) -> keras.Model:
        x = keras.layers.Dropout(0.5)(model.layers[-2].output)  # of no seed
        return keras.Model(model.input, keras.layers.Dense(3, "softmax")(x))

    source = changed(tmp_path / "dropping", dropping)
    stage = MagnitudePrune(last_epochs=2, **QUICK)
    whole, _ = perform(stage, data=data_folder, model=source, into=tmp_path / "whole")

    def killed(*arguments: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr("kpipe.stages.magnitude_prune.retrain", killed)
        with pytest.raises(KeyboardInterrupt):
            perform(stage, data=data_folder, model=source)
    folder, _ = perform(stage, data=data_folder, model=source)
    assert (folder / "model.keras").read_bytes() == (whole / "model.keras").read_bytes()
    assert losses(folder) == losses(whole)


@pytest.mark.parametrize(
    "stage",
    [
        MagnitudePrune(epochs=1, last_epochs=1, learning_rate=0.01),
        ClusterWeights(clusters=4, epochs=1, learning_rate=0.01),
        QuantizeAware(epochs=1, learning_rate=0.01),
    ],
    ids=lambda stage: stage.name,
)
def test_frozen_normalizations_stay_and_the_rest_trains(
    perform, data_folder: Path, tmp_path: Path, stage: Stage
) -> None:
    def frozen(model: keras.Model) -> None:
        model.trainable = False
        (batch_norm,) = [n for n in model.layers if isinstance(n, keras.layers.BatchNormalization)]
        batch_norm.set_weights([np.full(8, value) for value in (1.5, 0.5, 0.1, 0.9)])

    source = changed(tmp_path / "frozen", frozen)
    folder, _ = perform(stage, data=data_folder, model=source)
    before, after = load_model(source), load_model(folder)
    for one, other in zip(before.layers, after.layers, strict=True):
        same = [np.array_equal(*pair) for pair in zip(one.weights, other.weights, strict=True)]
        if same:
            normalizes = isinstance(one, keras.layers.BatchNormalization)
            assert all(same) if normalizes else not any(same[:1]), one.name


def test_normalizations_inside_a_model_stay_frozen() -> None:
    model = keras.Sequential([keras.Input((32, 32, 3)), toy(1)])
    model.trainable = False
    unfreeze_but_normalization(model)
    kinds = {type(layer) for layer in model._flatten_layers() if not layer.trainable}
    assert kinds == {keras.layers.BatchNormalization}


def test_quantize_aware_opens_nested_models(perform, data_folder: Path, tmp_path: Path) -> None:
    def nest(model: keras.Model) -> keras.Model:
        pixels = keras.Input((32, 32, 3))
        return keras.Model(pixels, model(pixels))

    source = changed(tmp_path / "nested", nest)
    stage = QuantizeAware(epochs=1, learning_rate=1e-9)
    folder, _ = perform(stage, data=data_folder, model=source)
    before, after = load_model(source), load_model(folder)
    assert not any(isinstance(layer, keras.Model) for layer in after.layers)
    for one, other in zip(kernels(before), kernels(after), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
