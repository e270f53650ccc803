"""Whether two thumbnails show one shot, slightly changed.

    laid         one thumbnail upon the other, at 16, then 32, then 64 pixels a side
    particular   r := correlation at 16 pixels of what is left of both when the principal components
                 of the whole set are taken out; alike from 0.92 on
    structure    s := mean over 7 x 7 windows, at 32 pixels, of
                      (2 cov(a, b) + C) / (var(a) + var(b) + C); alike from 0.8 on
    same pixels  or else, what correlates by 0.9985 as it lies, under the same light

Photos of one kind of thing (cells, tiles, faces, garments on a table) share most of what a
thumbnail shows. The principal components hold just that; what is left tells two things of a kind
from two copies of a photo. Where that is little, such as the edge of a garment on a bare floor, the
structure (the second factor of SSIM, Wang et al. 2004) looks at the texture beside the edge.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.ndimage import uniform_filter

from kpipe.data.image_info import THUMBNAIL
from kpipe.data.near_duplicates.alignment import aligned, correlation, halved, moved

__all__ = ["alike", "components", "correlations"]

_ALIKE, _ALIKE_STRUCTURE = 0.92, 0.8
# Copies of a photo that shows nothing particular are told by these: correlation, levels.
_SAME, _SAME_LIGHT = 0.9985, 8.0
# Pixels a side: r from which a pair is worth the next stage.
_PROMISING = {16: 0.35, 32: 0.7, THUMBNAIL: _ALIKE}
_SIDE = 16
# At most so many components, one for so many photos: of few photos they would hold the photos
# themselves. They are found in a sample of so many.
_COMPONENTS, _PHOTOS_EACH, _SAMPLE = 32, 10, 2000
# Levels^2: what rounding and compression leave where a photo shows nothing; in 49 pixels, more.
_FLOOR, _WINDOW_FLOOR = 0.1, 20.0
_WINDOW = 7


def alike(photos: np.ndarray, others: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """Whether the two of each pair are copies of one photo.

    Args:
        photos: (pairs, THUMBNAIL, THUMBNAIL) uint8, grey.
        others: likewise.
        shared: `components` of the whole set.

    Returns:
        (pairs,) bool.
    """
    found = _same_pixels(photos, others)
    if found.all():
        return found
    rest = np.flatnonzero(~found)
    left, laid, inside, there = _laid(photos[rest], others[rest], shared, _PROMISING)
    if len(left):
        at_32 = halved(laid), np.floor(halved(inside)), halved(there)
        found[rest[left]] = _structure(*at_32) >= _ALIKE_STRUCTURE
    return found


def correlations(photos: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Correlation of each pair, one laid upon the other.

    Args:
        photos: (pairs, THUMBNAIL, THUMBNAIL) uint8, grey.
        others: likewise.

    Returns:
        (pairs,) float64 in [-1, 1].
    """
    if not len(photos):
        return np.zeros(0)
    every = dict.fromkeys(_PROMISING, -np.inf)
    _, laid, inside, there = _laid(photos, others, _constant(), every)
    return correlation(laid, inside, there).astype(float)


def components(grey: np.ndarray) -> np.ndarray:
    """What the photos of a set have in common.

    Args:
        grey: (photos, THUMBNAIL, THUMBNAIL) uint8, in an order that says nothing.

    Returns:
        (components, 256) float32, orthonormal: the constant, then principal components.
    """
    sample = grey[:_SAMPLE].astype(np.float32)
    while sample.shape[1] > _SIDE:
        sample = halved(sample)
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


def _laid(
    photos: np.ndarray, others: np.ndarray, shared: np.ndarray, promising: Mapping[int, float]
) -> tuple[np.ndarray, ...]:
    """Of the pairs that pass every stage: places, photos laid, insides, others."""
    photos, others = _larger_first(photos, others, shared)
    moves = np.zeros((len(photos), 4), np.float32)
    left = np.arange(len(photos))
    laid = inside = there = np.zeros((0, THUMBNAIL, THUMBNAIL), np.float32)
    for side, least in promising.items():
        here, there = photos[left].astype(np.float32), others[left].astype(np.float32)
        while here.shape[1] > side:
            here, there = halved(here), halved(there)
        moves[left] = aligned(here, there, moves[left])
        laid, inside = moved(here, moves[left])
        passed = _particular(laid, inside, there, shared) >= least
        left = left[passed]
        laid, inside, there = laid[passed], inside[passed], there[passed]
        if not len(left):
            break
    return left, laid, inside, there


def _larger_first(
    photos: np.ndarray, others: np.ndarray, shared: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Each pair in the order in which it agrees better: a photo is laid upon its crop."""
    small, smaller = (grey.astype(np.float32) for grey in (photos, others))
    while small.shape[1] > _SIDE:
        small, smaller = halved(small), halved(smaller)
    still = np.zeros((len(photos), 4), np.float32)
    there, back = (
        _particular(*moved(a, aligned(a, b, still)), b, shared)
        for a, b in ((small, smaller), (smaller, small))
    )
    swap = (back > there)[:, None, None]
    return np.where(swap, others, photos), np.where(swap, photos, others)


def _particular(
    photos: np.ndarray, inside: np.ndarray, others: np.ndarray, shared: np.ndarray
) -> np.ndarray:
    """The r of each pair, where `inside` is 1."""
    while photos.shape[1] > _SIDE:
        photos, inside, others = halved(photos), halved(inside), halved(others)
    inside = np.floor(inside)
    # Where the photo has no pixels it is given the other's, and these do not count below.
    photos = np.where(inside > 0, photos, others)
    photos, inside, others = (grey.reshape(len(photos), -1) for grey in (photos, inside, others))
    photos, others = (inside * (grey - grey @ shared.T @ shared) for grey in (photos, others))
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

    # Where one has no pixels, both are flat, and windows that reach there stay alike.
    photos, others = (inside * (grey - mean(grey)) for grey in (photos, others))
    # Brightness and contrast may differ all over; the least squares' gain takes that away.
    photos = photos * mean(photos * others) / np.maximum(mean(photos**2), 1e-3)
    a, b = local(photos), local(others)
    covariance = local(photos * others) - a * b
    variances = local(photos**2) - a**2 + local(others**2) - b**2
    return mean((2 * covariance + _WINDOW_FLOOR) / (variances + _WINDOW_FLOOR))[:, 0, 0]
