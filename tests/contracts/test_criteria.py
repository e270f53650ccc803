"""The contract of every criterion of kpipe.prune."""

from __future__ import annotations

import numpy as np
import pytest

from kpipe.prune import CRITERIA, plan, rank
from tests.prune import nets
from tests.prune.masking import randomize

CASES = ["lite", "residual", "separable", "grouped", "squeezed"]
IMAGES = np.random.default_rng(0).uniform(0, 255, (6, nets.SIZE, nets.SIZE, 3)).astype("float32")
DATA = [(IMAGES[:4], np.arange(4)), (IMAGES[4:], np.arange(2))]

# Some of these nets have filters that no normalization follows.
pytestmark = pytest.mark.filterwarnings("ignore:.*'bn_scale' cannot score:UserWarning")


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("net", CASES)
def test_one_finite_score_per_unit_and_weights_left_as_found(name: str, net: str) -> None:
    model = randomize(nets.NETS[net][0]())
    before = [weight.numpy() for weight in model.weights]
    rankings = rank(model, name, DATA)
    for group, ranking in rankings.items():
        assert ranking.group.name == group
        assert ranking.scores.shape == ranking.group.units.shape == ranking.group.channels.shape
        assert np.isfinite(ranking.scores).all() and (ranking.scores >= 0).all()
    after = [weight.numpy() for weight in model.weights]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", CRITERIA)
def test_the_same_model_and_seed_give_the_same_scores(name: str) -> None:
    first, second = (rank(randomize(nets.lite()), name, DATA, seed=3) for _ in range(2))
    for group in first:
        np.testing.assert_array_equal(first[group].scores, second[group].scores)


@pytest.mark.parametrize("name", CRITERIA)
def test_the_lowest_of_every_group_can_be_planned(name: str) -> None:
    model = randomize(nets.lite())
    request = {
        ranking.group.layer: ranking.group.channels[np.argsort(ranking.scores)[:3]]
        for ranking in rank(model, name, DATA).values()
    }
    kept = plan(model, request).kept
    for layer, gone in request.items():
        assert not set(gone.tolist()) & set(kept[layer].tolist())


@pytest.mark.parametrize("name", sorted(set(CRITERIA) - {"random", "geometric_median"}))
@pytest.mark.parametrize("normalize", ["none", "mean", "max", "l2"])
def test_a_filter_that_does_nothing_scores_lowest(name: str, normalize: str) -> None:
    model = randomize(nets.lite())
    for weight in (*model.get_layer("head").weights, *model.get_layer("head_bn").weights):
        value = weight.numpy()
        value[..., 7] = 0
        weight.assign(value)
    scores = rank(model, name, DATA, normalize=normalize)["head"].scores
    assert scores[7] == scores.min() == 0
    assert scores.max() > 0
