"""Criteria that look at what filters do on data, after their normalization and activation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from kpipe.prune.ranking.ranking import Candidate

__all__ = ["apoz", "mean_activation", "taylor"]


def mean_activation(candidate: Candidate) -> np.ndarray:
    """Mean absolute activation (Molchanov et al. 2017, arXiv 1611.06440, section 2.2)."""
    found = candidate.measured.activity(labels=False)
    return np.stack([candidate.of_units(m, found[m].magnitude) for m in candidate.group.members])


def apoz(candidate: Candidate) -> np.ndarray:
    """1 - APoZ, the share of activations that are above 0 (Hu et al. 2016, arXiv 1607.03250).

    APoZ counts zeros after ReLU; here what is not above 0 counts, so that other activations have a
    share too.
    """
    found = candidate.measured.activity(labels=False)
    return np.stack([candidate.of_units(m, 1 - found[m].inactive) for m in candidate.group.members])


def taylor(candidate: Candidate) -> np.ndarray:
    """First-order effect on the loss (Molchanov et al. 2017, arXiv 1611.06440, equation 8).

    The paper compares layers after dividing each by its l2 norm: `normalize="l2"`.
    """
    found = candidate.measured.activity(labels=True)
    rows = []
    for member in candidate.group.members:
        effect = found[member].effect
        assert effect is not None
        rows.append(candidate.of_units(member, effect))
    return np.stack(rows)
