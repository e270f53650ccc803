"""Criteria that look at weights alone."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import cdist

if TYPE_CHECKING:
    from kpipe.prune.ranking.ranking import Candidate

__all__ = ["bn_scale", "geometric_median", "l1", "l2", "random"]


def l1(candidate: Candidate) -> np.ndarray:
    """Sum of absolute filter weights (Li et al. 2017, "Pruning Filters for Efficient ConvNets")."""
    return np.stack([np.abs(candidate.filters(m)).sum(axis=1) for m in candidate.group.members])


def l2(candidate: Candidate) -> np.ndarray:
    """Euclidean norm of filter weights (He et al. 2018, "Soft Filter Pruning")."""
    return np.stack(
        [np.sqrt(np.square(candidate.filters(m)).sum(axis=1)) for m in candidate.group.members]
    )


def geometric_median(candidate: Candidate) -> np.ndarray:
    """Sum of the distances to all other filters of the group.

    The filter nearest to the geometric median of its layer is the one that the others can best
    stand in for (He et al. 2019, arXiv 1811.00250, equation 6).
    """
    filters = (candidate.filters(m) for m in candidate.group.members)
    return np.stack([cdist(rows, rows).sum(axis=1) for rows in filters])


def bn_scale(candidate: Candidate) -> np.ndarray | None:
    """|gamma| of the BatchNormalization that follows (Liu et al. 2017, arXiv 1708.06519).

    Layers without one, or with one that does not scale, do not count; a group of such layers alone
    is not judged.
    """
    rows = []
    for member in candidate.group.members:
        gamma = candidate.measured.scale(member)
        if gamma is not None:
            rows.append(candidate.of_units(member, np.abs(gamma)))
    return np.mean(rows, axis=0) if rows else None


def random(candidate: Candidate) -> np.ndarray:
    """Uniform draws from (seed, group): the control that any criterion must beat."""
    name = zlib.crc32(candidate.group.layer.encode())
    draws = np.random.default_rng([candidate.seed, name]).random(len(candidate.group.units))
    return np.tile(draws, (len(candidate.group.members), 1))
