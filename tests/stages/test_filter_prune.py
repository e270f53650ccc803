from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kpipe.errors import PruneError
from kpipe.prune import count_macs
from kpipe.stages import FilterPrune
from kpipe.stages.compression.validation import Validation
from kpipe.stages.shared.model_folder import load_model, read_metadata, reset_keras, save_model
from tests.stages.conftest import RECIPE, toy_folder


@pytest.fixture(scope="module")
def models(walk) -> dict[str, keras.Model]:
    names = ("FineTune", "FilterPrune", "MagnitudePrune")
    return {name: load_model(walk.made_by(name)) for name in names}


def test_the_share_of_multiply_accumulates_is_reached(models) -> None:
    share = count_macs(models["FilterPrune"]) / count_macs(models["FineTune"])
    assert 0.4 < share <= 0.6


def test_the_pruned_model_is_really_smaller_and_answers_in_the_same_classes(walk, models) -> None:
    before, after = models["FineTune"], models["FilterPrune"]
    assert after.count_params() < before.count_params()
    assert after.input_shape == before.input_shape
    assert after.output_shape == before.output_shape == (None, 3)
    narrower = [
        layer.name
        for layer in after.layers
        if layer.output.shape[-1] < before.get_layer(layer.name).output.shape[-1]
    ]
    assert len(narrower) > 5
    sizes = [(walk.made_by(n) / "model.keras").stat().st_size for n in ("FineTune", "FilterPrune")]
    assert sizes[1] < sizes[0]
    assert read_metadata(walk.made_by("FilterPrune"))["title"] == "MobileNet 0.25, pruned"


def test_the_journal_tells_what_each_round_cost_and_brought(walk, models) -> None:
    macs = count_macs(models["FilterPrune"])
    notes = walk.notes("FilterPrune")
    assert f"round 1: {macs / 1e6:.1f} M MACs" in notes
    assert f"({macs / count_macs(models['FineTune']):.1%})" in notes
    (round_,) = json.loads((walk.made_by("FilterPrune") / "history.json").read_text())
    assert len(round_["history"]["loss"]) == 2


def test_half_of_the_weights_of_each_pruned_kernel_are_zeros(models) -> None:
    dense, sparse = models["FilterPrune"], models["MagnitudePrune"]
    checked = 0
    for layer in sparse.layers:
        if type(layer) not in (keras.layers.Conv2D, keras.layers.Dense):
            continue
        zeros = float(np.mean(np.array(layer.kernel) == 0))
        before = float(np.mean(np.array(dense.get_layer(layer.name).kernel) == 0))
        assert before < 0.1
        assert zeros == pytest.approx(0.5, abs=0.03), layer.name
        checked += 1
    assert checked > 10
    assert count_macs(sparse) == count_macs(dense)


def test_the_journal_says_that_zeros_give_no_speed(walk) -> None:
    notes = walk.notes("MagnitudePrune")
    assert "50% to 50% zeros" in notes and "not a faster model" in notes


@pytest.mark.parametrize("stage", ["FilterPrune", "MagnitudePrune"])
def test_no_checkpoints_are_left_in_the_result(walk, stage: str) -> None:
    assert not list(walk.made_by(stage).glob("training*"))


def test_a_share_that_cannot_be_reached_is_refused_with_the_nearest(
    perform, data_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(PruneError, match="macs of at least"):
        perform(FilterPrune(macs=0.01), data=data_folder, model=toy_folder(tmp_path / "toy", 1))


def rounds_of(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "pruning.json").read_text())["rounds"]


ALONE = {"soft_target_weight": 0.0, "feature_weight": 0.0}
QUICK: dict[str, Any] = {"rounds": 1, "last_epochs": 1, "round_to": 2, "batch_size": 12}


def test_without_a_target_half_of_the_work_stays() -> None:
    assert FilterPrune().target == {"macs": 0.5}
    assert FilterPrune(params=0.3).target == {"params": 0.3}
    (problem,) = FilterPrune(params=0.3, latency_ms=2.0).validation_errors()
    assert "params=0.3, latency_ms=2.0: only one target is allowed" in problem


def test_parameters_can_be_the_target(perform, data_folder: Path, tmp_path: Path) -> None:
    source = toy_folder(tmp_path / "toy", 1)
    stage = FilterPrune(params=0.6, **ALONE, **QUICK)
    folder, _ = perform(stage, data=data_folder, model=source)
    before, after = rounds_of(folder)
    assert after["params"] <= 0.6 * before["params"]
    assert load_model(folder).count_params() == after["params"]


def test_a_latency_can_be_the_target(perform, data_folder: Path, tmp_path: Path) -> None:
    source = toy_folder(tmp_path / "toy", 1)
    # As slow as no machine is: everything may stay, which is refused with the time that was found.
    with pytest.raises(PruneError, match="already meets the target"):
        perform(FilterPrune(latency_ms=1e6, **QUICK), data=data_folder, model=source)


@pytest.mark.slow
def test_a_latency_is_reached_by_trying_removals(
    perform, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arithmetic stands for the measurement, so that the test does not depend on the machine."""

    def latency(net: Any, quantize: str | None = None) -> float:
        assert quantize == "int8"
        return net.get_layer("conv2d").filters / 10

    monkeypatch.setattr("kpipe.lite.latency", latency)
    source = toy_folder(tmp_path / "toy", 1)
    whole = load_model(source).get_layer("conv2d").filters
    stage = FilterPrune(latency_ms=0.06 * whole, **QUICK)
    folder, _ = perform(stage, data=data_folder, model=source)
    left = load_model(folder).get_layer("conv2d").filters
    measured = json.loads((folder / "measured.json").read_text())
    assert measured == {"latency_ms": [whole / 10, left / 10]}
    assert not any("latency_ms" in row for row in rounds_of(folder))
    assert left == whole // 2


@pytest.mark.slow
def test_only_measured_figures_differ_from_one_run_to_the_next(
    perform, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kpipe.lite.latency", lambda net, quantize: time.perf_counter())
    source = toy_folder(tmp_path / "toy", 1)
    one, two = (
        perform(FilterPrune(**ALONE, **QUICK), data=data_folder, model=source, into=tmp_path / name)
        for name in ("one", "two")
    )
    names = sorted(path.name for path in one[0].iterdir())
    assert names == sorted(path.name for path in two[0].iterdir())
    differ = [n for n in names if (one[0] / n).read_bytes() != (two[0] / n).read_bytes()]
    assert differ == ["measured.json"]


@pytest.mark.slow
def test_a_scan_sets_ceilings_which_the_rounds_keep(
    perform, data_folder: Path, tmp_path: Path
) -> None:
    source = toy_folder(tmp_path / "toy", 1)
    stage = FilterPrune(macs=0.6, sensitivity=1.0, **QUICK)
    folder, events = perform(stage, data=data_folder, model=source)
    scan = json.loads((folder / "pruning.json").read_text())["sensitivity"]
    assert scan["max_pruning_ratio"] == {"conv2d": 0.75} and set(scan["scores"]) == {"conv2d"}
    assert 0 <= scan["whole"] <= 1
    notes = [event["text"] for event in events if event["event"] == "note"]
    assert any("1 groups of filters scanned, 0 of them" in note for note in notes)
    with pytest.raises(PruneError, match="cannot be pruned to"):
        perform(
            FilterPrune(macs=0.2, sensitivity=1.0, **QUICK),
            data=data_folder,
            model=source,
            into=tmp_path / "again",
        )


@pytest.mark.slow
def test_a_scan_that_was_made_is_not_made_again(
    perform, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = toy_folder(tmp_path / "toy", 1)
    stage = FilterPrune(macs=0.6, sensitivity=1.0, **QUICK)

    def killed(*arguments: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr("kpipe.stages.compression.filter_pruning.retrain", killed)
        with pytest.raises(KeyboardInterrupt):
            perform(stage, data=data_folder, model=source)
    monkeypatch.setattr("kpipe.prune.scan_sensitivity", killed)
    folder, _ = perform(stage, data=data_folder, model=source)
    whole, _ = perform(
        FilterPrune(macs=0.6, **QUICK), data=data_folder, model=source, into=tmp_path / "no scan"
    )
    scan = json.loads((folder / "pruning.json").read_text())["sensitivity"]
    assert scan["max_pruning_ratio"] == {"conv2d": 0.75}
    assert rounds_of(folder)[1]["filters"] == rounds_of(whole)[1]["filters"]


def seeing_colors(folder: Path) -> Path:
    """A network that tells the three colors by two filters each; those of red weigh least."""
    reset_keras(0)
    pixels = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(6, 1, use_bias=False)(keras.layers.Rescaling(1 / 255)(pixels))
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(pixels, keras.layers.Dense(3, "softmax", use_bias=False)(x))
    filters, answers = np.zeros((3, 6)), np.zeros((6, 3))
    for answer, channel in enumerate((2, 1, 0)):  # blue, green, red
        weight = 0.5 if channel == 0 else 1.0
        filters[channel, [2 * answer, 2 * answer + 1]] = weight
        answers[[2 * answer, 2 * answer + 1], answer] = 20 / weight
    model.set_weights([filters[None, None], answers])
    folder.mkdir()
    (folder / "history.json").write_text("[]")
    save_model(model, folder, title="seeing", recipe=RECIPE)
    return folder


def test_a_tolerance_keeps_the_round_before(perform, data_folder: Path, tmp_path: Path) -> None:
    # Without two colors of three, more photos are lost than chance explains.
    stage = FilterPrune(macs=0.4, tolerance=0.1, learning_rate=1e-9, **ALONE, **QUICK)
    folder, events = perform(stage, data=data_folder, model=seeing_colors(tmp_path / "seeing"))
    before, after = rounds_of(folder)
    assert before["after"] == 1.0 and after["after"] < 0.9
    assert load_model(folder).count_params() == before["params"] > after["params"]
    notes = [event["text"] for event in events if event["event"] == "note"]
    assert any(note.startswith("stopped: round 1: ") for note in notes)
    assert after["loss"]["lost"] - after["loss"]["won"] > 0.1 * after["loss"]["photos"]
    assert json.loads((folder / "pruning.json").read_text())["stopped"]


def test_a_loss_that_chance_explains_is_noted_and_goes_on(
    perform, monkeypatch: pytest.MonkeyPatch, data_folder: Path, tmp_path: Path
) -> None:
    results = iter([[True] * 9, [False] * 9, [False] + [True] * 8])
    monkeypatch.setattr(Validation, "correct", lambda *_: np.array(next(results)))
    stage = FilterPrune(macs=0.7, tolerance=0.05, learning_rate=1e-9, **ALONE, **QUICK)
    folder, events = perform(stage, data=data_folder, model=seeing_colors(tmp_path / "seeing"))
    assert not json.loads((folder / "pruning.json").read_text())["stopped"]
    notes = [event["text"] for event in events if event["event"] == "note"]
    expected = "round 1: 1 of 9 validation photos lost, 0 won, more than the tolerance of 5.0%"
    assert any(note.startswith(expected) for note in notes)


@pytest.mark.slow
def test_the_retraining_learns_from_the_network_as_it_was(
    perform, taught, data_folder: Path, tmp_path: Path
) -> None:
    source = toy_folder(tmp_path / "toy", 1)
    found = taught(lambda model: model.count_params())
    losses = []
    for weights in ((3.0, 5.0), (0.0, 0.0)):
        names = dict(zip(("soft_target_weight", "feature_weight"), weights, strict=True))
        stage = FilterPrune(macs=0.6, learning_rate=1e-9, **names, **QUICK)
        folder, _ = perform(stage, data=data_folder, model=source, into=tmp_path / str(weights[0]))
        (row,) = json.loads((folder / "history.json").read_text())
        losses.append((row["history"]["loss"][0], row["history"]["val_loss"][0]))
    ((small, whole, asked),) = found
    assert small == load_model(folder).count_params()
    assert whole == load_model(source).count_params()
    assert asked == {
        "feature_teacher": whole,
        "soft_target_weight": 3.0,
        "feature_weight": 5.0,
    }
    # Next to nothing was learned: what is validated is the same, what is trained on is not.
    assert losses[0][1] == pytest.approx(losses[1][1], rel=1e-3)
    assert losses[0][0] != pytest.approx(losses[1][0], rel=1e-2)
