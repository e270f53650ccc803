"""Criteria that need only weights."""

from __future__ import annotations

import zlib

import numpy as np
from scipy.spatial.distance import cdist

from kpipe.prune.ranking.candidate import Candidate

__all__ = ["bn_scale", "geometric_median", "l1", "l2", "random"]


def l1(candidate: Candidate) -> np.ndarray:
    """Score by the sum of absolute weights (Li et al. 2017, arXiv 1608.08710)."""
    return np.stack([np.abs(candidate.filters(m)).sum(axis=1) for m in candidate.group.members])


def l2(candidate: Candidate) -> np.ndarray:
    """Score by the Euclidean norm of the weights (He et al. 2018, arXiv 1808.06866)."""
    return np.stack(
        [np.sqrt(np.square(candidate.filters(m)).sum(axis=1)) for m in candidate.group.members]
    )


def geometric_median(candidate: Candidate) -> np.ndarray:
    """Score by the sum of distances to all other filters of the group.

    The other filters can best replace the filter nearest to the geometric median of its layer (He
    et al. 2019, arXiv 1811.00250, equation 6).
    """
    filters = (candidate.filters(m) for m in candidate.group.members)
    return np.stack([cdist(rows, rows).sum(axis=1) for rows in filters])


def bn_scale(candidate: Candidate) -> np.ndarray | None:
    """Score by |gamma| of the BatchNormalization that follows (Liu et al. 2017, arXiv 1708.06519).

    Layers that no scaling BatchNormalization follows do not count. A group of such layers only
    gets no scores.
    """
    rows = []
    for member in candidate.group.members:
        gamma = candidate.measurements.scale(member)
        if gamma is not None:
            rows.append(candidate.per_unit(member, np.abs(gamma)))
    return np.mean(rows, axis=0) if rows else None


def random(candidate: Candidate) -> np.ndarray:
    """Score at random, from (seed, group): the baseline that any criterion must beat."""
    name = zlib.crc32(candidate.group.layer.encode())
    draws = np.random.default_rng([candidate.seed, name]).random(len(candidate.group.units))
    return np.tile(draws, (len(candidate.group.members), 1))
