"""Criteria that look at activations, after the normalization that follows a filter."""

from __future__ import annotations

import numpy as np

from kpipe.prune.ranking.candidate import Candidate

__all__ = ["apoz", "mean_activation", "taylor"]


def mean_activation(candidate: Candidate) -> np.ndarray:
    """Score by mean absolute activation (Molchanov et al. 2017, arXiv 1611.06440, section 2.2)."""
    found = candidate.measurements.activity(labels=False)
    return np.stack([candidate.per_unit(m, found[m].magnitude) for m in candidate.group.members])


def apoz(candidate: Candidate) -> np.ndarray:
    """Score by 1 - APoZ, the fraction of activations above 0 (Hu et al. 2016, arXiv 1607.03250).

    APoZ counts zeros after ReLU. Here all values that are not above 0 count, so that other
    activation functions can be scored too.
    """
    found = candidate.measurements.activity(labels=False)
    return np.stack([candidate.per_unit(m, 1 - found[m].inactive) for m in candidate.group.members])


def taylor(candidate: Candidate) -> np.ndarray:
    """Score by the first-order effect on the loss.

    Source: Molchanov et al. 2017, arXiv 1611.06440, equation 8, which
    divides the scores of each layer by their l2 norm: `normalize="l2"`.
    """
    found = candidate.measurements.activity(labels=True)
    rows = []
    for member in candidate.group.members:
        effect = found[member].effect
        assert effect is not None
        rows.append(candidate.per_unit(member, effect))
    return np.stack(rows)
