"""The calibration error against plain NumPy and drawn predictors; thresholds against counting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpipe.ensemble import (
    calibration_error_by_chance,
    coverage_threshold,
    debiased_calibration_error,
    expected_calibration_error,
)
from kpipe.errors import TrainingError


def two_classes(confidence: np.ndarray) -> np.ndarray:
    return np.stack([confidence, 1 - confidence], axis=1)


def drawn(count: int, seed: int, overconfident: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return a predictor that is right as often as it says, less a gap, and labels."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.6, 1, count)
    right = rng.uniform(size=count) < confidence - overconfident
    return two_classes(confidence), np.where(right, 0, 1)


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_it_is_the_sum_over_the_bins(bins: int) -> None:
    probabilities, labels = drawn(300, 0, 0.1)
    confidence, correct = probabilities.max(axis=1), labels == 0
    expected = 0.0
    for low in np.arange(bins) / bins:
        inside = (confidence > low) & (confidence <= low + 1 / bins)
        if inside.any():
            gap = abs(correct[inside].mean() - confidence[inside].mean())
            expected += inside.mean() * gap
    found = expected_calibration_error(probabilities, labels, bins)
    assert found == pytest.approx(expected, abs=1e-9)


def test_a_gap_of_the_confidence_is_the_error_of_many_images() -> None:
    for gap in (0.0, 0.08):
        found = expected_calibration_error(*drawn(100_000, 1, gap))
        assert found == pytest.approx(gap, abs=0.01)


def test_the_error_by_chance_is_that_of_calibrated_predictors() -> None:
    for count in (60, 372, 2000):
        found = [expected_calibration_error(*drawn(count, seed)) for seed in range(300)]
        by_chance = [calibration_error_by_chance(drawn(count, seed)[0]) for seed in range(20)]
        assert np.mean(by_chance) == pytest.approx(np.mean(found), rel=0.08)


@pytest.mark.parametrize("gap", [0.0, 0.1])
def test_the_debiased_square_is_right_in_the_mean_of_few_images(gap: float) -> None:
    # Without the cut at 0, the mean over draws would be exact; a gap is hardly ever cut.
    found = [debiased_calibration_error(*drawn(372, seed, gap)) ** 2 for seed in range(200)]
    if gap:
        assert np.mean(found) == pytest.approx(gap**2, rel=0.1)
    else:
        assert np.median(np.sqrt(found)) < 0.02
        plain = [expected_calibration_error(*drawn(372, seed)) for seed in range(200)]
        assert np.median(plain) > 0.03


def test_the_debiased_error_is_the_sum_over_bins_of_equal_size() -> None:
    probabilities, labels = drawn(300, 0, 0.15)
    confidence, correct = probabilities.max(axis=1), labels == 0
    order, total = np.argsort(confidence), 0.0
    for part in order.reshape(15, 20):
        accuracy = correct[part].mean()
        gap = accuracy - confidence[part].mean()
        total += (gap**2 - accuracy * (1 - accuracy) / 19) / 15
    found = debiased_calibration_error(probabilities, labels)
    assert found == pytest.approx(np.sqrt(total), abs=1e-9)


def test_the_order_of_images_of_the_same_confidence_does_not_matter() -> None:
    confidence = np.repeat([0.6, 0.75, 0.9], 40)
    labels = np.random.default_rng(0).integers(0, 2, 120)
    found = debiased_calibration_error(two_classes(confidence), labels)
    assert found > 0
    shuffled = np.concatenate([np.sort(labels[start : start + 40]) for start in (0, 40, 80)])
    assert debiased_calibration_error(two_classes(confidence), shuffled) == pytest.approx(found)


def test_certain_predictions_have_no_error_by_chance() -> None:
    assert calibration_error_by_chance(np.tile([[1.0, 0.0]], (20, 1))) == 0


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(50, 100), min_size=1, max_size=40), st.floats(0.01, 0.99))
def test_the_threshold_answers_the_fraction_and_no_more_than_ties_need(
    percent: list[int], coverage: float
) -> None:
    confidence = np.array(percent) / 100
    threshold = coverage_threshold(two_classes(confidence), coverage)
    answered = confidence >= threshold
    wanted = int(np.ceil(round(coverage * len(confidence), 9)))
    assert wanted <= answered.sum()
    # Without the least confident of those answered, there would be too few.
    assert (confidence > confidence[answered].min()).sum() < wanted
    assert 0 <= threshold <= 1


def test_rounding_to_256_steps_moves_no_image_across_it() -> None:
    confidence = np.array([255, 250, 240, 200, 150]) / 256
    threshold = coverage_threshold(two_classes(confidence), 0.6)
    assert threshold == pytest.approx(220 / 256)


@pytest.mark.parametrize("coverage", [0, 1, -0.1, 1.5, np.nan])
def test_a_coverage_out_of_range_is_refused(coverage: float) -> None:
    with pytest.raises(TrainingError, match="coverage"):
        coverage_threshold(two_classes(np.array([0.9, 0.8])), coverage)


def test_bins_out_of_range_are_refused() -> None:
    for function in (
        lambda p, n: expected_calibration_error(p, [0], n),
        calibration_error_by_chance,
    ):
        with pytest.raises(TrainingError, match="bins"):
            function(np.array([[0.9, 0.1]]), 0)
