"""Decide whether two thumbnails show the same shot, slightly changed.

    alignment    of one thumbnail with the other, at 16, then 32, then 64 pixels a side
    residual     r := correlation at 16 pixels of both without the principal components of the
                 whole set; alike from 0.92
    structure    s := mean over 7 x 7 windows, at 32 pixels, of
                      (2 cov(a, b) + C) / (var(a) + var(b) + C); alike from 0.8
    same pixels  alternatively, a correlation of 0.9985 without alignment, at the same brightness

Photos of one kind of thing (cells, tiles, faces, garments on a table) share most of what a
thumbnail shows. The principal components capture that; the residual distinguishes two things of a
kind from two copies of a photo. Where the residual is small, such as at the edge of a garment on a
bare floor, the structure (the second factor of SSIM, Wang et al. 2004) compares the texture beside
the edge.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.ndimage import uniform_filter

from kpipe.data.image_info import THUMBNAIL
from kpipe.data.near_duplicates.alignment import align, correlation, halve, move

__all__ = ["alike", "components", "correlations"]

_ALIKE, _ALIKE_STRUCTURE = 0.92, 0.8
# Correlation and levels that identify copies of a photo without a residual.
_SAME, _SAME_LIGHT = 0.9985, 8.0
# Pixels a side: the r from which a pair enters the next stage.
_PROMISING = {16: 0.35, 32: 0.7, THUMBNAIL: _ALIKE}
_SIDE = 16
# Largest number of components; photos per component, since components of few photos would capture
# the photos themselves; photos in the sample that components are computed from.
_COMPONENTS, _PHOTOS_EACH, _SAMPLE = 32, 10, 2000
# In levels^2: variance that rounding and compression cause in plain photos, and in a window.
_FLOOR, _WINDOW_FLOOR = 0.1, 20.0
_WINDOW = 7


def alike(photos: np.ndarray, others: np.ndarray, common: np.ndarray) -> np.ndarray:
    """Return whether both photos of each pair are copies of one: (pairs,) bool.

    Args:
        photos: (pairs, THUMBNAIL, THUMBNAIL) uint8, grey; `others` likewise.
        others: the second photo of each pair.
        common: `components` of the whole set.
    """
    found = _same_pixels(photos, others)
    if found.all():
        return found
    rest = np.flatnonzero(~found)
    left, moved, inside, there = _align_in_stages(photos[rest], others[rest], common, _PROMISING)
    if len(left):
        at_32 = halve(moved), np.floor(halve(inside)), halve(there)
        found[rest[left]] = _structure(*at_32) >= _ALIKE_STRUCTURE
    return found


def correlations(photos: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the correlation of each pair of thumbnails when aligned: (pairs,) float64."""
    if not len(photos):
        return np.zeros(0)
    every = dict.fromkeys(_PROMISING, -np.inf)
    _, moved, inside, there = _align_in_stages(photos, others, _constant(), every)
    return correlation(moved, inside, there).astype(float)


def components(grey: np.ndarray) -> np.ndarray:
    """Return the principal components that the photos of a set have in common.

    Args:
        grey: (photos, THUMBNAIL, THUMBNAIL) uint8, in random order.

    Returns:
        (components, 256) float32, orthonormal: the constant, then principal components.
    """
    sample = grey[:_SAMPLE].astype(np.float32)
    while sample.shape[1] > _SIDE:
        sample = halve(sample)
    sample = sample.reshape(-1, _SIDE**2)
    sample = sample - sample.mean(1, keepdims=True)
    sample /= np.linalg.norm(sample, axis=1, keepdims=True) + 1
    number = min(_COMPONENTS, len(sample) // _PHOTOS_EACH)
    vectors = np.linalg.eigh((sample.T @ sample).astype(float))[1]
    return np.concatenate([_constant(), vectors[:, ::-1][:, :number].T]).astype(np.float32)


def _same_pixels(photos: np.ndarray, others: np.ndarray) -> np.ndarray:
    here, there = photos.astype(np.float32), others.astype(np.float32)
    means, deviations = (
        [measure(grey, axis=(1, 2)) for grey in (here, there)] for measure in (np.mean, np.std)
    )
    light = np.abs(means[0] - means[1]) <= _SAME_LIGHT
    light &= np.abs(deviations[0] - deviations[1]) <= _SAME_LIGHT
    return light & (correlation(here, np.ones_like(here), there) >= _SAME)


def _constant() -> np.ndarray:
    return np.full((1, _SIDE**2), 1 / _SIDE, np.float32)


def _align_in_stages(
    photos: np.ndarray, others: np.ndarray, common: np.ndarray, promising: Mapping[int, float]
) -> tuple[np.ndarray, ...]:
    """Positions, aligned photos, insides and others of the pairs that pass every stage."""
    photos, others = _larger_first(photos, others, common)
    moves = np.zeros((len(photos), 4), np.float32)
    left = np.arange(len(photos))
    moved = inside = there = np.zeros((0, THUMBNAIL, THUMBNAIL), np.float32)
    for side, least in promising.items():
        here, there = photos[left].astype(np.float32), others[left].astype(np.float32)
        while here.shape[1] > side:
            here, there = halve(here), halve(there)
        moves[left] = align(here, there, moves[left])
        moved, inside = move(here, moves[left])
        passed = _residual_correlation(moved, inside, there, common) >= least
        left = left[passed]
        moved, inside, there = moved[passed], inside[passed], there[passed]
        if not len(left):
            break
    return left, moved, inside, there


def _larger_first(
    photos: np.ndarray, others: np.ndarray, common: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Each pair in the order that agrees better: a photo is aligned with its crop."""
    small, smaller = (grey.astype(np.float32) for grey in (photos, others))
    while small.shape[1] > _SIDE:
        small, smaller = halve(small), halve(smaller)
    still = np.zeros((len(photos), 4), np.float32)
    there, back = (
        _residual_correlation(*move(a, align(a, b, still)), b, common)
        for a, b in ((small, smaller), (smaller, small))
    )
    swap = (back > there)[:, None, None]
    return np.where(swap, others, photos), np.where(swap, photos, others)


def _residual_correlation(
    photos: np.ndarray, inside: np.ndarray, others: np.ndarray, common: np.ndarray
) -> np.ndarray:
    """The r of each pair, where `inside` is 1."""
    while photos.shape[1] > _SIDE:
        photos, inside, others = halve(photos), halve(inside), halve(others)
    inside = np.floor(inside)
    # Outside its edges, a photo gets the pixels of the other, which do not count below.
    photos = np.where(inside > 0, photos, others)
    photos, inside, others = (grey.reshape(len(photos), -1) for grey in (photos, inside, others))
    photos, others = (inside * (grey - grey @ common.T @ common) for grey in (photos, others))
    pixels = np.maximum(inside.sum(1), 1)
    variance, others_variance, both = (
        np.einsum("ij,ij->i", a, b) / pixels
        for a, b in ((photos, photos), (others, others), (photos, others))
    )
    return both / np.sqrt((variance + _FLOOR) * (others_variance + _FLOOR))


def _structure(photos: np.ndarray, inside: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The s of each pair, where `inside` is 1."""

    def mean(grey: np.ndarray) -> np.ndarray:
        return (grey * inside).sum((1, 2), keepdims=True) / np.maximum(
            inside.sum((1, 2), keepdims=True), 1
        )

    def local(grey: np.ndarray) -> np.ndarray:
        return uniform_filter(grey, (1, _WINDOW, _WINDOW))

    # Outside the edges both are flat, so windows that reach there stay alike.
    photos, others = (inside * (grey - mean(grey)) for grey in (photos, others))
    # The least-squares gain removes a global difference in brightness and contrast.
    photos = photos * mean(photos * others) / np.maximum(mean(photos**2), 1e-3)
    a, b = local(photos), local(others)
    covariance = local(photos * others) - a * b
    variances = local(photos**2) - a**2 + local(others**2) - b**2
    return mean((2 * covariance + _WINDOW_FLOOR) / (variances + _WINDOW_FLOOR))[:, 0, 0]
