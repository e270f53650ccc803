"""Photos that look the same: one shot re-encoded, resized, brightened or slightly cropped.

candidates   pairs whose perceptual hashes (imagehash.phash) are close
alike        candidates whose thumbnails and colors agree
group        photos connected by alike pairs; its representative has the smallest sha256

A grey copy is alike, a copy in other colors is not. Nor are mirrored or turned copies; photos
turned by EXIF are compared upright.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from threadpoolctl import threadpool_limits

from kpipe.data.image_info import COLORS, THUMBNAIL, ImageInfo
from kpipe.data.near_duplicates.candidates import candidates
from kpipe.data.near_duplicates.comparison import alike, components, correlations
from kpipe.data.threads import in_threads

__all__ = ["alikeness", "representatives"]

# Levels: what is nearer to grey than this has no colors. Colors may differ by so much, and by this
# part of the stronger ones.
_GREY, _COLORS_APART, _PART_APART = 3.0, 4.0, 0.35
# Pairs in memory at once.
_BLOCK = 128


def representatives(photos: Sequence[ImageInfo]) -> list[str]:
    """The smallest sha256 among the photos that look like each photo.

    Args:
        photos: readable ones; their order is of no matter.
    """
    if not photos:
        return []
    digests = np.array([photo.sha256 for photo in photos], "str")
    # Copies need no comparison; and what is sampled from a sorted list depends on content alone.
    names, first, copy = np.unique(digests, return_index=True, return_inverse=True)
    one, two = _alike_pairs([photos[place] for place in first])
    graph = coo_array((np.ones(len(one), np.int8), (one, two)), shape=(len(names), len(names)))
    groups = connected_components(graph, directed=False)[1]
    smallest = np.full(len(names), len(names))
    np.minimum.at(smallest, groups, np.arange(len(names)))
    return [str(name) for name in names[smallest[groups]][copy]]


def alikeness(photos: Sequence[ImageInfo], others: Sequence[ImageInfo]) -> np.ndarray:
    """How alike the photos of each pair are: their correlation, one laid upon the other.

    Args:
        photos: the first of each pair.
        others: the second of each pair.

    Returns:
        (pairs,) float64 in [0, 1].
    """
    return np.clip(correlations(_grey(photos), _grey(others)), 0, 1)


def _alike_pairs(photos: Sequence[ImageInfo]) -> tuple[np.ndarray, np.ndarray]:
    hashes = np.frombuffer(b"".join(photo.hash for photo in photos), ">u8").astype(np.uint64)
    one, two = candidates(hashes)
    agree = _colors_agree(photos, one, two)
    one, two = one[agree], two[agree]
    grey = _grey(photos)
    shared = components(grey)

    def compared(start: int) -> np.ndarray:
        block = slice(start, start + _BLOCK)
        return alike(grey[one[block]], grey[two[block]], shared)

    # The products are small: a thread for each block, not several for each product.
    with threadpool_limits(1):
        found = list(in_threads(compared, range(0, len(one), _BLOCK)))
    same = np.concatenate([np.zeros(0, bool), *found])
    return one[same], two[same]


def _grey(photos: Sequence[ImageInfo]) -> np.ndarray:
    joined = b"".join(photo.thumbnail for photo in photos)
    return np.frombuffer(joined, np.uint8).reshape(-1, THUMBNAIL, THUMBNAIL)


def _colors_agree(photos: Sequence[ImageInfo], one: np.ndarray, two: np.ndarray) -> np.ndarray:
    joined = b"".join(photo.colors for photo in photos)
    colors = np.frombuffer(joined, np.uint8).reshape(-1, COLORS**2, 3).astype(np.float32)
    chroma = (colors - colors.mean(2, keepdims=True)).reshape(len(photos), -1)
    strength = np.sqrt((chroma**2).mean(1))
    apart = np.sqrt(np.mean((chroma[one] - chroma[two]) ** 2, axis=1))
    weaker = np.minimum(strength[one], strength[two])
    stronger = np.maximum(strength[one], strength[two])
    return (weaker < _GREY) | (apart <= _COLORS_APART + _PART_APART * stronger)
