"""A scan removes the stated fractions from one group at a time, and does not change the model."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kpipe.errors import PruneError
from kpipe.prune import (
    Sensitivity,
    count_params,
    plan,
    rank,
    remove_filters,
    scan_sensitivity,
    shift_statistics,
)
from tests.prune import nets
from tests.prune.masking import randomize


@pytest.mark.slow
def test_each_score_is_that_of_the_model_with_the_lowest_of_one_group_removed() -> None:
    model = randomize(nets.lite())
    before = [w.numpy() for w in model.weights]
    told: list[tuple[int, int]] = []
    found = scan_sensitivity(
        model,
        lambda net: -float(count_params(net)),
        fractions=(0.25, 0.99),
        ignored_layers=["stem"],
        progress=lambda done, total: told.append((done, total)),
    )
    assert found.whole == -model.count_params()
    assert "stem" not in found.scores and told[-1] == (len(told), len(told))
    assert len(told) == 2 * len(found.scores)
    for name, ranking in rank(model, "l1", ignored_layers=["stem"]).items():
        size = len(ranking.scores)
        for share, count in ((0.25, round(0.25 * size)), (0.99, size - 1)):
            lowest = ranking.group.channels[np.argsort(ranking.scores, kind="stable")[:count]]
            made = plan(model, {ranking.group.layer: lowest})
            assert found.scores[name][share] == -made.params_after
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, model.weights, strict=True))


def test_statistics_are_shifted_before_the_score() -> None:
    model = randomize(nets.residual())
    batch = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 3)).astype("float32")

    def mean(net: keras.Model) -> float:
        return float(np.sum(net.get_layer("post").moving_mean))

    found = scan_sensitivity(model, mean, fractions=(0.5,), calibration=[batch])
    assert found.whole == mean(model)
    name, row = next(iter(found.scores.items()))
    ranking = rank(model)[name]
    gone = ranking.group.channels[np.argsort(ranking.scores, kind="stable")]
    asked = plan(model, {ranking.group.layer: gone[: round(len(gone) / 2)]})
    small = remove_filters(model, asked)
    assert mean(small) != pytest.approx(row[0.5])
    shift_statistics(model, small, asked, [batch])
    assert mean(small) == pytest.approx(row[0.5], rel=1e-5)


def test_a_ceiling_is_the_last_share_before_the_first_fall() -> None:
    scores = {
        "bears much": {0.25: 0.9, 0.5: 0.88, 0.75: 0.86},
        "falls and returns": {0.25: 0.88, 0.5: 0.7, 0.75: 0.89},
        "bears nothing": {0.25: 0.5, 0.5: 0.4, 0.75: 0.3},
    }
    found = Sensitivity(0.9, scores)
    assert found.max_pruning_ratio(0.03) == {
        "bears much": 0.5,
        "falls and returns": 0.25,
        "bears nothing": 0.0,
    }
    assert found.max_pruning_ratio(0.05)["bears much"] == 0.75


@pytest.mark.parametrize("fractions", [(), (0.5, 0.25), (0.0, 0.5), (0.5, 1.0), (0.5, 0.5)])
def test_shares_that_cannot_be_scanned_are_refused(fractions) -> None:
    with pytest.raises(PruneError, match="cannot be scanned"):
        scan_sensitivity(nets.lite(), lambda net: 0.0, fractions=fractions)


def test_an_open_plan_still_removes_nothing() -> None:
    model = nets.lite()
    assert count_params(remove_filters(model, plan(model, {}))) == count_params(model)
