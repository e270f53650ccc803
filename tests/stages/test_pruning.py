from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from kpipe.errors import PruneError
from kpipe.prune import count_macs
from kpipe.stages import FilterPrune
from kpipe.stages.models import load_model, read_about
from tests.stages.conftest import toy_folder


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
    assert read_about(walk.made_by("FilterPrune"))["title"] == "MobileNet 0.25, pruned"


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
