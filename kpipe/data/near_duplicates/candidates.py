"""Find pairs of photos whose perceptual hashes differ in few bits.

    candidates := pairs at most b bits apart
    b          := the largest number up to 18 that gives no more pairs than can be compared

Re-encoded or resized copies are 0 to 6 bits apart, slight crops 4 to 18, photos of different things
32 on average. The larger and the more uniform a set is, the smaller b becomes, and the more crops
are missed.
"""

from __future__ import annotations

import numpy as np

__all__ = ["candidates"]

# Hashes are thresholded at their median, so they differ in an even number of bits.
_BITS = range(18, -2, -2)
_BLOCK = 256
_PAIRS, _PAIRS_EACH = 30_000, 3
# Each of many photos with one hash is compared with this many of the next.
_EQUALS = 32


def candidates(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs to compare of photos with these hashes, (photos,) uint64.

    Returns:
        Positions of the first and the second photo of each pair, (pairs,) int64 each.
    """
    order = np.argsort(hashes, kind="stable")
    distinct, start, size = np.unique(hashes[order], return_index=True, return_counts=True)
    most = max(_PAIRS, _PAIRS_EACH * len(hashes))
    one, two = _close(distinct, size, most)
    # Every photo of the one hash with every photo of the other.
    pairs = size[one] * size[two]
    pair = np.repeat(np.arange(len(one)), pairs)
    rank = np.arange(len(pair)) - np.repeat(np.cumsum(pairs) - pairs, pairs)
    ones = [start[one[pair]] + rank // size[two[pair]]]
    twos = [start[two[pair]] + rank % size[two[pair]]]
    for apart in range(1, min(_EQUALS, int(size.max(initial=1)) - 1) + 1):
        place = np.flatnonzero(hashes[order[:-apart]] == hashes[order[apart:]])
        ones.append(place)
        twos.append(place + apart)
    return order[np.concatenate(ones)], order[np.concatenate(twos)]


def _close(hashes: np.ndarray, size: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of different hashes, at most as many as give `most` pairs of photos."""
    none = np.zeros(0, np.int64)
    ones, twos, bits = [none], [none], [none]
    allowed = iter(_BITS)
    limit, count = next(allowed), 0
    for first in range(0, len(hashes), _BLOCK):
        apart = np.bitwise_count(hashes[first : first + _BLOCK, None] ^ hashes[first:])
        # Each pair once, and no hash with itself.
        apart[np.tril_indices(len(apart), 0, apart.shape[1])] = 255
        weights = size[first : first + _BLOCK]
        found = _weight(apart <= limit, weights, size[first:])
        while count + found > most and limit > 0:
            limit = next(allowed)
            kept = [each <= limit for each in bits]
            ones, twos, bits = (
                [each[keep] for each, keep in zip(side, kept, strict=True)]
                for side in (ones, twos, bits)
            )
            count = sum(int(size[a] @ size[b]) for a, b in zip(ones, twos, strict=True))
            found = _weight(apart <= limit, weights, size[first:])
        one, two = np.nonzero(apart <= limit)
        ones.append(one + first)
        twos.append(two + first)
        bits.append(apart[one, two])
        count += found
    return np.concatenate(ones), np.concatenate(twos)


def _weight(near: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> int:
    if rows.max() == 1 and columns.max() == 1:
        return int(np.count_nonzero(near))
    return int(rows @ (near @ columns))
