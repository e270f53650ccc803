from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from kpipe.data import Sampling, class_shares, class_weight
from kpipe.errors import DataError

METHODS = ["oversample", "undersample", "augment_minority"]
UNEVEN = np.repeat([0, 1, 2], [20, 7, 3])

quick = settings(max_examples=40, deadline=None)
counts = st.lists(st.integers(1, 40), min_size=1, max_size=5)
samplings = st.builds(Sampling, st.sampled_from(METHODS), st.floats(0.05, 1.0) | st.just(1))


def shuffled(counts: list[int], seed: int = 0) -> np.ndarray:
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(seed).permutation(labels)


def test_weights_are_photos_over_classes_times_count() -> None:
    labels = np.repeat([0, 1, 2], [6, 3, 1])
    weights = class_weight(labels)
    assert weights == pytest.approx({0: 10 / 18, 1: 10 / 9, 2: 10 / 3})
    assert np.mean([weights[label] for label in labels]) == pytest.approx(1)


def test_every_class_weighs_the_same_in_sum() -> None:
    labels = np.random.default_rng(0).integers(0, 5, 200)
    weights = class_weight(labels, classes=list("abcde"))
    sums = np.bincount(labels, [weights[label] for label in labels])
    np.testing.assert_allclose(sums, 40)


def test_absent_classes_are_named() -> None:
    with pytest.raises(DataError, match="no label of class 'b', 'd'"):
        class_weight([0, 2, 2], classes=["a", "b", "c", "d"])
    with pytest.raises(DataError, match="no label of class 1"):
        class_weight([0, 2, 2])


@pytest.mark.parametrize("labels", [[], [0.5, 1.0], [[0, 1]], ["a", "b"]])
def test_what_is_no_label_is_refused(labels: list) -> None:
    with pytest.raises(DataError, match="labels must be class indices"):
        class_weight(labels)


def test_labels_beyond_the_classes_are_named() -> None:
    with pytest.raises(DataError, match=r"labels \[-1, 2\]"):
        class_weight([-1, 0, 1, 2], classes=["a", "b"])


# The effective number of photos: Cui et al. 2019.


def by_the_paper(counts: list[int], beta: float) -> np.ndarray:
    """1 / E of each class, E the sum of beta**k for k < n as the paper derives it."""
    worth = np.array([np.sum(np.float64(beta) ** np.arange(n)) for n in counts])
    weights = 1 / worth
    return weights * np.sum(counts) / (weights @ counts)


@quick
@given(counts=counts, beta=st.floats(0, 0.9999))
def test_effective_weights_are_those_of_the_paper(counts: list[int], beta: float) -> None:
    labels = shuffled(counts)
    weights = class_weight(labels, method="effective", beta=beta)
    assert list(weights) == list(range(len(counts)))
    np.testing.assert_allclose(list(weights.values()), by_the_paper(counts, beta), rtol=1e-9)
    assert np.mean([weights[label] for label in labels]) == pytest.approx(1)


def test_effective_weights_keep_their_digits_at_many_photos_and_near_one() -> None:
    labels = np.repeat([0, 1], [3_000_000, 3])
    beta = 1 - 2.0**-40
    exact = [(1 - Fraction(beta)) / (1 - Fraction(beta) ** n) for n in (1, 3)]
    found = class_weight(np.repeat([0, 1], [1, 3]), method="effective", beta=beta)
    assert found[0] / found[1] == pytest.approx(float(exact[0] / exact[1]), rel=1e-12)
    # beta**n vanishes: the large class is worth 1 / (1 - beta) photos, however many it has.
    weights = class_weight(labels, method="effective", beta=0.999)
    worth = (1 - 0.999**3) / (1 - 0.999)
    assert weights[1] / weights[0] == pytest.approx(1000 / worth, rel=1e-9)


def test_beta_leads_from_no_weights_to_balanced_ones() -> None:
    none = class_weight(UNEVEN, method="effective", beta=0.0)
    assert none == pytest.approx({0: 1, 1: 1, 2: 1})
    nearly = class_weight(UNEVEN, method="effective", beta=1 - 1e-12)
    assert nearly == pytest.approx(class_weight(UNEVEN), rel=1e-9)
    between = class_weight(UNEVEN, method="effective", beta=0.9)
    assert 1 < between[2] / between[0] < 20 / 3


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    expected = compute_class_weight("balanced", classes=np.arange(3), y=UNEVEN)
    np.testing.assert_allclose(list(class_weight(UNEVEN).values()), expected, rtol=1e-12)


@pytest.mark.parametrize("beta", [-0.1, 1.0, float("nan")])
def test_a_beta_out_of_its_range_is_refused(beta: float) -> None:
    with pytest.raises(DataError, match="beta"):
        class_weight(UNEVEN, method="effective", beta=beta)


def test_an_unknown_weighting_is_refused() -> None:
    with pytest.raises(DataError, match="did you mean 'effective'"):
        class_weight(UNEVEN, method="efective")


# Class shares


@quick
@given(counts=counts, sampling=samplings | st.none(), beta=st.floats(0, 0.99) | st.none())
def test_shares_are_those_of_the_draws_times_the_weights(counts, sampling, beta) -> None:
    labels = shuffled(counts)
    weights = None if beta is None else class_weight(labels, method="effective", beta=beta)
    seen = labels if sampling is None else labels[sampling.draw(labels, 1, 4)[0]]
    factors = np.ones(len(counts)) if weights is None else np.array(list(weights.values()))
    expected = np.bincount(seen, factors[seen], minlength=len(counts))
    found = class_shares(labels, sampling, weights)
    np.testing.assert_allclose(list(found.values()), expected / expected.sum(), rtol=1e-12)


def test_weights_on_what_sampling_leaves_give_equal_shares() -> None:
    sampling = Sampling("oversample", 0.5)
    left = UNEVEN[sampling.draw(UNEVEN, 0, 0)[0]]
    found = class_shares(UNEVEN, sampling, class_weight(left))
    assert found == pytest.approx({0: 1 / 3, 1: 1 / 3, 2: 1 / 3})
