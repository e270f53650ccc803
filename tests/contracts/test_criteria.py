"""What every criterion of kpipe.prune keeps to, whoever wrote it."""

from __future__ import annotations

import numpy as np
import pytest

from kpipe.prune import CRITERIA, plan, rank
from tests.prune import nets
from tests.prune.masking import randomize

CASES = ["lite", "residual", "separable", "grouped", "squeezed"]


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("net", CASES)
def test_one_finite_score_per_unit_and_weights_left_as_found(name: str, net: str) -> None:
    model = randomize(nets.NETS[net][0]())
    before = [weight.numpy() for weight in model.weights]
    rankings = rank(model, name)
    for group, ranking in rankings.items():
        assert ranking.group.name == group
        assert ranking.scores.shape == ranking.group.units.shape == ranking.group.channels.shape
        assert np.isfinite(ranking.scores).all() and (ranking.scores >= 0).all()
    after = [weight.numpy() for weight in model.weights]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", CRITERIA)
def test_the_same_model_and_seed_give_the_same_scores(name: str) -> None:
    first, second = (rank(randomize(nets.lite()), name, seed=3) for _ in range(2))
    for group in first:
        np.testing.assert_array_equal(first[group].scores, second[group].scores)


@pytest.mark.parametrize("name", CRITERIA)
def test_the_lowest_of_every_group_can_be_planned(name: str) -> None:
    model = randomize(nets.lite())
    request = {
        ranking.group.layer: ranking.group.channels[np.argsort(ranking.scores)[:3]]
        for ranking in rank(model, name).values()
    }
    kept = plan(model, request).kept
    for layer, gone in request.items():
        assert not set(gone.tolist()) & set(kept[layer].tolist())


@pytest.mark.parametrize("name", sorted(set(CRITERIA) - {"random"}))
@pytest.mark.parametrize("normalize", ["none", "mean", "max"])
def test_a_filter_of_zeros_scores_lowest(name: str, normalize: str) -> None:
    model = randomize(nets.lite())
    kernel = model.get_layer("head").kernel
    value = kernel.numpy()
    value[..., 7] = 0
    kernel.assign(value)
    scores = rank(model, name, normalize=normalize)["head"].scores
    assert scores.argmin() == 7 and scores[7] == 0
