"""Scores compared with NumPy, and their normalization across layers."""

from __future__ import annotations

import numpy as np
import pytest

from kpipe.errors import PruneError
from kpipe.prune import Candidate, rank
from tests.prune import nets
from tests.prune.masking import randomize


def kernel(model: object, layer: str) -> np.ndarray:
    return model.get_layer(layer).kernel.numpy()  # type: ignore[attr-defined]


def test_l1_of_a_group_is_the_mean_of_its_layers_relative_norms() -> None:
    model = randomize(nets.residual())
    norms = [np.abs(kernel(model, n)).sum((0, 1, 2)) for n in ("stem", "a_2", "b_2", "c_1")]
    for normalize, divisor in (("mean", np.mean), ("max", np.max), ("none", lambda x: 1.0)):
        expected = np.mean([n / divisor(n) for n in norms], axis=0)
        scores = rank(model, "l1", normalize=normalize)["stem"].scores
        np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_l2_takes_the_right_axis_of_every_kernel() -> None:
    model = randomize(nets.NETS["transposed"][0]())
    expected = np.sqrt((kernel(model, "first") ** 2).sum((0, 1, 3)))
    np.testing.assert_allclose(rank(model, "l2", normalize="none")["first"].scores, expected, 1e-6)
    model = randomize(nets.NETS["separable"][0]())
    point = model.get_layer("first").pointwise_kernel.numpy()
    expected = np.sqrt((point**2).sum((0, 1, 2)))
    np.testing.assert_allclose(rank(model, "l2", normalize="none")["first"].scores, expected, 1e-6)


def test_filters_that_go_together_in_one_layer_score_together() -> None:
    model = randomize(nets.NETS["grouped"][0]())
    made = np.abs(kernel(model, "grouped")).sum((0, 1, 2)).reshape(4, 3).sum(0)
    followed = np.abs(kernel(model, "one_each")).sum((0, 1, 2)).reshape(4, 3, 2).sum((0, 2))
    ranking = rank(model, "l1", normalize="none")["grouped"]
    np.testing.assert_allclose(ranking.scores, (made + followed) / 2, rtol=1e-6)
    assert ranking.group.channels.tolist() == [0, 1, 2]


def test_random_is_a_function_of_seed_and_group() -> None:
    model = nets.lite()
    first, again, other = (rank(model, "random", seed=s) for s in (1, 1, 2))
    assert all(np.array_equal(first[n].scores, again[n].scores) for n in first)
    assert not np.array_equal(first["head"].scores, other["head"].scores)
    assert not np.array_equal(first["b_expand"].scores, first["c_expand"].scores)


def test_a_custom_criterion_gets_the_data() -> None:
    def by_index(candidate: Candidate) -> np.ndarray:
        return candidate.data * candidate.group.channels.astype(float)

    scores = rank(nets.lite(), by_index, 2.0, normalize="none")["head"].scores
    assert scores.tolist() == [2.0 * i for i in range(32)]


def test_unusable_scores_and_unknown_names_are_refused() -> None:
    model = nets.lite()
    with pytest.raises(PruneError, match="'stem'") as caught:
        rank(model, lambda candidate: np.full(3, np.nan))
    assert "(8,)" in str(caught.value)
    with pytest.raises(PruneError, match="did you mean 'l1'"):
        rank(model, "L1 ")
    with pytest.raises(PruneError, match="did you mean 'mean'"):
        rank(model, normalize="meen")


def test_protected_layers_are_not_ranked() -> None:
    assert set(rank(nets.residual(), ignored_layers=["a_add"])) == {"a_1", "b_1"}
