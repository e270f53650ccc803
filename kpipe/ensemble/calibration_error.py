"""How far the confidence of a classifier is from its accuracy, and how many photos it may answer.

    confidence   the highest probability of an image
    ECE          sum over bins of confidence: images in the bin / images * |accuracy - confidence|

Source: Naeini et al. 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI;
Guo et al. 2017 (arXiv 1706.04599), equation 3.
"""

from __future__ import annotations

import math

import numpy as np

from kpipe.ensemble.labelled_probabilities import check_labels, check_probabilities
from kpipe.errors import TrainingError
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = [
    "calibration_error_by_chance",
    "coverage_threshold",
    "debiased_calibration_error",
    "expected_calibration_error",
]


@names_wrong_kinds
def expected_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = 15
) -> float:
    """Return the expected calibration error (ECE), in [0, 1].

    Chance alone makes it larger than 0: compare it with `calibration_error_by_chance`.

    Args:
        probabilities: (images, classes), each row with a sum of 1.
        labels: true class of each image, (images,), or one-hot.
        bins: number of bins of equal width in [0, 1], each with its upper end.

    Raises:
        TrainingError: no probabilities, labels that do not fit them, or `bins` below 1.

    Example:
        >>> import numpy as np
        >>> from kpipe.ensemble import expected_calibration_error
        >>> sure = np.tile([[0.9, 0.1]], (10, 1))  # right 7 of 10 times
        >>> expected_calibration_error(sure, np.repeat([0, 1], [7, 3]))
        0.20
    """
    found = check_probabilities(probabilities)
    correct = found.argmax(axis=1) == check_labels(labels, found)
    confidence = found.max(axis=1)
    gaps = np.bincount(_bins(confidence, bins), weights=correct - confidence)
    return float(np.abs(gaps).sum() / len(found))


@names_wrong_kinds
def calibration_error_by_chance(probabilities: np.ndarray, bins: int = 15) -> float:
    """Return the mean ECE of a perfectly calibrated classifier on as many images.

    Were each prediction right with a probability of its confidence, the sum of a bin would have the
    variance `sum p (1 - p)`; by the normal distribution, its mean absolute value is `sqrt(2 / pi)`
    standard deviations.

    Args:
        probabilities: (images, classes), each row with a sum of 1.
        bins: as for `expected_calibration_error`.

    Raises:
        TrainingError: no probabilities, or `bins` below 1.

    Example:
        >>> import numpy as np
        >>> from kpipe.ensemble import calibration_error_by_chance
        >>> calibration_error_by_chance(np.tile([[0.9, 0.1]], (100, 1)))
        0.024
    """
    confidence = np.minimum(check_probabilities(probabilities).max(axis=1), 1)
    variances = np.bincount(_bins(confidence, bins), weights=confidence * (1 - confidence))
    return float(math.sqrt(2 / math.pi) * np.sqrt(variances).sum() / len(confidence))


@names_wrong_kinds
def debiased_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = 15
) -> float:
    """Return the root mean square of the calibration error, without what chance adds to it.

    Its square, before it is cut at 0, is unbiased, so that few images do not make it larger:

        sum over bins of images in the bin / images * ((a - c)^2 - a (1 - a) / (images in it - 1))

    with the accuracy `a` and the mean confidence `c` of a bin.

    Args:
        probabilities: (images, classes), each row with a sum of 1.
        labels: true class of each image, (images,), or one-hot.
        bins: number of bins, each with about as many images; no more than half the images.

    Returns:
        The error, in [0, 1]; 0 if it is not larger than chance makes it.

    Raises:
        TrainingError: no probabilities, labels that do not fit them, or `bins` below 1.

    Source:
        Kumar et al. 2019, "Verified Uncertainty Calibration", NeurIPS (arXiv 1909.10155), part 5.

    Example:
        >>> import numpy as np
        >>> from kpipe.ensemble import debiased_calibration_error
        >>> sure = np.tile([[0.9, 0.1]], (100, 1))  # right 70 of 100 times
        >>> debiased_calibration_error(sure, np.repeat([0, 1], [70, 30]), bins=1)
        0.19
    """
    found = check_probabilities(probabilities)
    correct = found.argmax(axis=1) == check_labels(labels, found)
    confidence = found.max(axis=1)
    _check_bins(bins)
    parts = np.array_split(np.sort(confidence), max(1, min(bins, len(confidence) // 2)))
    # Images of the same confidence share a bin, so that their order does not matter.
    inside = np.searchsorted([part[-1] for part in parts], confidence)
    total = 0.0
    for number in np.unique(inside):
        right, sure = correct[inside == number], confidence[inside == number]
        accuracy = right.mean()
        by_chance = accuracy * (1 - accuracy) / max(len(right) - 1, 1)
        total += len(right) * ((accuracy - sure.mean()) ** 2 - by_chance)
    return math.sqrt(max(total / len(confidence), 0))


@names_wrong_kinds
def coverage_threshold(probabilities: np.ndarray, coverage: float) -> float:
    """Return the confidence that a fraction of the images reaches.

    It lies halfway between the confidence of the last image that reaches it and the first that does
    not, so that rounding moves no image across it. Images of the same confidence are on one side:
    more may reach it than declared.

    Args:
        probabilities: (images, classes), each row with a sum of 1.
        coverage: the fraction, above 0 and below 1.

    Returns:
        A threshold in [0, 1], for `confidence >= threshold`; 0 if every image has to reach it.

    Raises:
        TrainingError: no probabilities, or the coverage is out of range.

    Example:
        >>> import numpy as np
        >>> from kpipe.ensemble import coverage_threshold
        >>> confidence = np.array([0.9, 0.6, 0.8, 0.7])
        >>> coverage_threshold(np.stack([confidence, 1 - confidence], axis=1), 0.75)
        0.65
    """
    if not 0 < coverage < 1:
        raise TrainingError(
            "invalid coverage",
            expected="a fraction of the images, above 0 and below 1",
            received=repr(coverage),
        )
    confidence = check_probabilities(probabilities).max(axis=1)
    # Not ceil(0.7 * 10), which is 8.
    answered = math.ceil(round(coverage * len(confidence), 9))
    lowest = np.sort(confidence)[::-1][answered - 1]
    below = confidence[confidence < lowest]
    return float((lowest + below.max()) / 2) if len(below) else 0.0


def _bins(confidence: np.ndarray, bins: int) -> np.ndarray:
    """Return the number of the bin of equal width of each image."""
    _check_bins(bins)
    return np.clip(np.ceil(confidence * bins) - 1, 0, bins - 1).astype(np.int64)


def _check_bins(bins: int) -> None:
    if bins < 1:
        raise TrainingError("invalid number of bins", expected="1 or more", received=repr(bins))
