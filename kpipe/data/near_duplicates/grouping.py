"""Group near duplicates: one shot re-encoded, resized, brightened or slightly cropped.

candidates   pairs whose perceptual hashes (imagehash.phash) are close
alike        candidates whose thumbnails and colors agree
group        photos connected by alike pairs; its representative has the smallest sha256

A grey copy is alike; copies in other colors, mirrored or rotated copies are not. Photos are
compared upright, according to EXIF.
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

__all__ = ["likeness", "representatives"]

# In levels: a chroma below which a photo counts as grey, and a difference that colors may have, to
# which this fraction of the stronger chroma is added.
_GREY, _COLORS_APART, _PART_APART = 3.0, 4.0, 0.35
# Pairs in memory at once.
_BLOCK = 128


def representatives(photos: Sequence[ImageInfo]) -> list[str]:
    """Return the smallest sha256 in the group of each photo; all must have thumbnails."""
    if not photos:
        return []
    digests = np.array([photo.sha256 for photo in photos], "str")
    # Copies need no comparison, and a sample of sorted digests depends only on the content.
    names, first, copy = np.unique(digests, return_index=True, return_inverse=True)
    one, two = _alike_pairs([photos[place] for place in first])
    graph = coo_array((np.ones(len(one), np.int8), (one, two)), shape=(len(names), len(names)))
    groups = connected_components(graph, directed=False)[1]
    smallest = np.full(len(names), len(names))
    np.minimum.at(smallest, groups, np.arange(len(names)))
    return [str(name) for name in names[smallest[groups]][copy]]


def likeness(photos: Sequence[ImageInfo], others: Sequence[ImageInfo]) -> np.ndarray:
    """Return how alike each pair is: its correlation when aligned, (pairs,) in [0, 1]."""
    return np.clip(correlations(_grey(photos), _grey(others)), 0, 1)


def _alike_pairs(photos: Sequence[ImageInfo]) -> tuple[np.ndarray, np.ndarray]:
    hashes = np.frombuffer(b"".join(photo.hash for photo in photos), ">u8").astype(np.uint64)
    one, two = candidates(hashes)
    agree = _colors_agree(photos, one, two)
    one, two = one[agree], two[agree]
    grey = _grey(photos)
    common = components(grey)

    def compared(start: int) -> np.ndarray:
        block = slice(start, start + _BLOCK)
        return alike(grey[one[block]], grey[two[block]], common)

    # The matrix products are small: one thread per block, not several per product.
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
