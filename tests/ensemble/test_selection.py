"""Weights of members against exhaustive search, optimality conditions and plain NumPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from kpipe.ensemble import assess, fit_weights, select
from kpipe.errors import TrainingError

MEMBERS, PHOTOS, CLASSES = 4, 60, 3


@pytest.fixture(params=range(3))
def drawn(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """Members of different quality that err on different photos."""
    random = np.random.default_rng(request.param)
    labels = random.integers(0, CLASSES, PHOTOS)
    logits = random.normal(0, 2, (MEMBERS, PHOTOS, CLASSES))
    logits[:, np.arange(PHOTOS), labels] += np.array([2.0, 1.5, 1.5, 0.0])[:, None]
    powers = np.exp(logits)
    return powers / powers.sum(axis=2, keepdims=True), labels


def loss(weights: np.ndarray, probabilities: np.ndarray, labels: np.ndarray) -> float:
    mixed = np.tensordot(weights, probabilities, 1)
    return float(-np.log(mixed[np.arange(len(labels)), labels]).mean())


def test_fitted_weights_are_optimal(drawn) -> None:
    probabilities, labels = drawn
    weights = fit_weights(probabilities, labels)
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    truth = probabilities[:, np.arange(PHOTOS), labels]
    # Karush, Kuhn, Tucker: for each member, mean(p / mixed) is 1, or less where the weight is 0.
    slopes = (truth / (weights @ truth)).mean(axis=1)
    np.testing.assert_allclose(slopes[weights > 0], 1, atol=1e-3)
    assert (slopes <= 1 + 1e-3).all()


def test_no_weights_of_a_grid_are_better(drawn) -> None:
    best = loss(fit_weights(*drawn), *drawn)
    for parts in itertools.product(range(11), repeat=MEMBERS - 1):
        if sum(parts) <= 10:
            weights = np.array([*parts, 10 - sum(parts)]) / 10
            assert best <= loss(weights, *drawn) + 1e-9


def test_the_selection_is_the_best_average_on_its_greedy_way(drawn) -> None:
    drawn_members: list[int] = []
    averages = []
    for _ in range(12):
        steps = [
            loss(
                np.bincount([*drawn_members, one], minlength=MEMBERS) / (len(drawn_members) + 1),
                *drawn,
            )
            for one in range(MEMBERS)
        ]
        drawn_members.append(int(np.argmin(steps)))
        averages.append((min(steps), tuple(drawn_members)))
    best = min(averages, key=lambda row: row[0])[1]
    expected = np.bincount(best, minlength=MEMBERS) / len(best)
    np.testing.assert_allclose(select(*drawn, draws=12), expected)


def test_a_member_that_adds_nothing_has_no_weight() -> None:
    good = np.full((4, 3), 0.05) + 0.85 * np.eye(3)[[0, 1, 2, 0]]
    bad = np.full((4, 3), 0.45) - 0.35 * np.eye(3)[[0, 1, 2, 0]]
    for weights in (select([bad, good], [0, 1, 2, 0]), fit_weights([bad, good], [0, 1, 2, 0])):
        assert weights.tolist() == [0, 1]


def test_equal_members_are_one_member() -> None:
    rows = np.full((4, 3), 0.05) + 0.85 * np.eye(3)[[0, 1, 2, 0]]
    assert select([rows, rows], [0, 1, 2, 0]).tolist() == [1, 0]
    assert fit_weights([rows, rows], [0, 1, 2, 0]).sum() == pytest.approx(1)


def test_probabilities_of_zero_have_a_finite_loss() -> None:
    wrong, right = [[0.0, 1.0]] * 3, [[1.0, 0.0]] * 3
    for choose in (select, fit_weights):
        assert choose([wrong, right], [0, 0, 0]).tolist() == [0, 1]


def test_one_unit_is_two_classes(drawn) -> None:
    labels = drawn[1] % 2
    units = np.clip(drawn[0][:, :, :1], 0.01, 0.99)
    both = np.concatenate([1 - units, units], axis=2)
    np.testing.assert_array_equal(select(units, labels), select(both, labels))
    assert assess(units, labels) == assess(both, labels)


def test_an_assessment_against_numpy(drawn) -> None:
    probabilities, labels = drawn
    found = assess(probabilities, labels)
    hits = probabilities.argmax(axis=2) == labels
    np.testing.assert_allclose([one.accuracy for one in found.members], hits.mean(axis=1))
    eye = np.eye(MEMBERS)
    expected = [loss(eye[n], probabilities, labels) for n in range(MEMBERS)]
    np.testing.assert_allclose([one.loss for one in found.members], expected)
    assert found.best == int(np.argmin(expected))
    assert found.oracle == hits.any(axis=0).mean()
    predicted = probabilities.argmax(axis=2)
    for one, other in itertools.product(range(MEMBERS), repeat=2):
        assert found.disagreement[one][other] == (predicted[one] != predicted[other]).mean()
    mean = found.combinations["average"]
    assert mean.loss == pytest.approx(loss(np.full(MEMBERS, 1 / MEMBERS), probabilities, labels))
    product = np.exp(np.log(probabilities).mean(axis=0))
    product /= product.sum(axis=1, keepdims=True)
    geometric = found.combinations["geometric"]
    assert geometric.loss == pytest.approx(-np.log(product[np.arange(PHOTOS), labels]).mean())
    votes = np.eye(CLASSES)[predicted].mean(axis=0) + 1e-3 * probabilities.mean(axis=0)
    assert found.combinations["vote"].accuracy == (votes.argmax(axis=1) == labels).mean()
    assert found.combinations["weighted"].loss <= found.combinations["greedy"].loss + 1e-9
    assert found.improves("weighted")


def test_a_combination_that_is_no_better_than_the_best_member_does_not_improve() -> None:
    good = np.full((4, 3), 0.05) + 0.85 * np.eye(3)[[0, 1, 2, 0]]
    bad = np.full((4, 3), 0.45) - 0.35 * np.eye(3)[[0, 1, 2, 0]]
    found = assess([bad, good], [0, 1, 2, 0])
    assert found.best == 1
    assert not any(found.improves(name) for name in ("average", "geometric", "weighted", "greedy"))
    assert found.improves("vote") == (found.combinations["vote"].accuracy == 1)


GOOD, LABELS = [[[0.5, 0.5], [0.2, 0.8]]] * 2, [0, 1]
BAD = {
    "no members": ([], LABELS, "at least one of each"),
    "no photos": (np.zeros((2, 0, 3)), [], "at least one of each"),
    "one member's rows": (GOOD[0], LABELS, "at least one of each"),
    "ragged": ([[[0.5, 0.5]], [[1.0]]], LABELS, "no array"),
    "NaN": (
        [GOOD[0], [[np.nan, 0.5], [0.2, 0.8]]],
        LABELS,
        "member 2 of the ensemble predicts NaN",
    ),
    "logits": ([GOOD[0], [[3.0, -2.0], [0.2, 0.8]]], LABELS, "member 2"),
    "several labels": ([GOOD[0], [[0.9, 0.9], [0.2, 0.8]]], LABELS, "member 2"),
    "too many labels": (GOOD, [0, 1, 1], "do not fit"),
    "unknown label": (GOOD, [0, 2], "0 to 1"),
    "probabilities as labels": (GOOD, [0.2, 0.8], "whole numbers"),
    "names as labels": (GOOD, ["a", "b"], "whole numbers"),
}


@pytest.mark.parametrize("function", [select, fit_weights, assess])
@pytest.mark.parametrize("kind", BAD)
def test_bad_predictions_are_refused(kind: str, function) -> None:
    probabilities, labels, words = BAD[kind]
    with pytest.raises(TrainingError, match=words):
        function(probabilities, labels)
