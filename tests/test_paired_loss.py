"""The test of a loss against exact enumeration and a numeric maximum of the likelihood."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binom, binomtest

from kpipe.paired_loss import PairedLoss


def draws(lost: Any, won: Any, photos: int, lose: float, win: float) -> Any:
    """How often so many photos are lost and won, of the true probabilities to lose and win one."""
    return binom.pmf(lost, photos, lose) * binom.pmf(won, photos - lost, win / (1 - lose))


def refusals(photos: int, tolerance: float, lose: float, win: float) -> float:
    """The fraction of all draws of the photos in which the file is refused."""
    lost, won = np.mgrid[: photos + 1, : photos + 1].reshape(2, -1)
    frequency = draws(lost, won, photos, lose, win)
    likely = frequency > 1e-6
    counts = zip(lost[likely].tolist(), won[likely].tolist(), strict=True)
    refused = [PairedLoss(photos, *pair).verdict(tolerance) == "beyond" for pair in counts]
    return float(frequency[likely] @ refused)


def test_without_a_margin_it_is_the_exact_test_of_mcnemar() -> None:
    for lost, won in [(3, 1), (5, 0), (0, 4), (40, 22)]:
        expected = binomtest(lost, lost + won, 0.5, alternative="greater").pvalue
        assert PairedLoss(100, lost, won).p_value() == pytest.approx(expected)


@pytest.mark.parametrize("margin", [0.01, 0.03, 0.2])
@pytest.mark.parametrize(("photos", "lost", "won"), [(39, 3, 1), (39, 7, 0), (343, 30, 12)])
def test_with_a_margin_the_frequency_of_wins_has_the_largest_likelihood(
    photos: int, lost: int, won: int, margin: float
) -> None:
    def deviance(win: float) -> float:
        both = max(1 - 2 * win - margin, 1e-300)
        wins = won * np.log(win) if won else 0.0
        return -float(lost * np.log(win + margin) + wins + (photos - lost - won) * np.log(both))

    bounds = (1e-12, (1 - margin) / 2)
    win = minimize_scalar(deviance, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    counts = np.arange(photos + 1)
    frequency = draws(counts[:, None], counts, photos, win + margin, win)
    expected = frequency[counts[:, None] - counts >= lost - won].sum()
    assert PairedLoss(photos, lost, won).p_value(margin) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("photos", "lost", "tolerance", "p_value"),
    [
        (10_000, 190, 0.01, 5.3e-16),
        (2000, 38, 0.01, 2.0e-4),
        (500, 90, 0.1, 3.7e-8),
        (100_000, 1100, 0.01, 9.1e-4),
        (39, 5, 0.01, 0.029),
    ],
)
def test_a_file_that_only_loses_is_refused(
    photos: int, lost: int, tolerance: float, p_value: float
) -> None:
    loss = PairedLoss(photos, lost, 0)
    assert loss.verdict(tolerance) == "beyond"
    assert loss.p_value(tolerance) == pytest.approx(p_value, rel=0.03)


@pytest.mark.parametrize("win", [0.0, 0.005])
def test_a_true_loss_far_above_the_tolerance_is_refused_in_most_draws(win: float) -> None:
    assert refusals(1000, 0.01, 0.03 + win, win) > 0.9


@pytest.mark.parametrize("photos", [39, 200])
@pytest.mark.parametrize("tolerance", [0.0, 0.01, 0.05])
def test_a_true_loss_of_the_tolerance_is_refused_in_at_most_5_percent(
    photos: int, tolerance: float
) -> None:
    for differ in (tolerance, tolerance + 0.001, 1.2 * tolerance + 0.01, tolerance + 0.05):
        lose, win = (differ + tolerance) / 2, (differ - tolerance) / 2
        assert refusals(photos, tolerance, lose, win) <= 0.05


@pytest.mark.parametrize(
    ("lost", "won", "verdict"),
    [
        (0, 0, "within"),
        (2, 3, "within"),
        (1, 0, "undecided"),
        (3, 1, "undecided"),
        (4, 0, "undecided"),
        (5, 0, "beyond"),
        (9, 1, "beyond"),
    ],
)
def test_of_39_test_photos_a_few_may_be_lost(lost: int, won: int, verdict: str) -> None:
    assert PairedLoss(39, lost, won).verdict(0.01) == verdict


def test_the_same_loss_on_more_photos_is_beyond_chance() -> None:
    assert [PairedLoss(39 * n, 3 * n, n).verdict(0.01) for n in (1, 3, 10)] == [
        "undecided",
        "undecided",
        "beyond",
    ]


def test_a_loss_of_exactly_the_tolerance_is_within_it() -> None:
    assert PairedLoss(100, 3, 0).verdict(0.03) == "within"
    assert PairedLoss(100, 7, 0).verdict(0.07) == "within"
    assert PairedLoss(10, 10, 0).verdict(1.0) == "within"


def test_a_choice_needs_a_real_loss_beyond_the_tolerance() -> None:
    # Of 1000 photos, 20 lost and 5 won: a real loss of 1.5 %, perhaps of no more than 1 %.
    real = PairedLoss(1000, 20, 5)
    assert real.verdict(0.01) == "undecided" and not real.acceptable(0.01)
    assert real.acceptable(0.015)
    assert PairedLoss(39, 4, 0).acceptable(0.01) and not PairedLoss(39, 5, 0).acceptable(0.01)


def test_no_discordant_photos_say_nothing() -> None:
    assert PairedLoss(39, 0, 0).p_value() == PairedLoss(39, 0, 0).p_value(0.5) == 1.0
