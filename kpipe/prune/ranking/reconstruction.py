"""Score filters by the error that removing them causes in the layers that read them.

    y  = sum over channels c of W_c * x_c            the output of a layer that reads the filters
    error(c) = E |W_c * x_c|^2                       what y lacks without channel c
             = sum over k, j of <W_kc, W_jc> E[x_(p+k)c x_(p+j)c]

for kernel positions k, j and all positions p. No gradient is needed. ThiNet chooses channels by the
same error (Luo et al. 2017, arXiv 1707.06342, equation 6).
"""

from __future__ import annotations

import numpy as np

from kpipe.prune.ranking.candidate import Candidate

__all__ = ["reconstruction"]


def reconstruction(candidate: Candidate) -> np.ndarray | None:
    """Score by the fraction of the next layers' output that is lost, summed over these layers.

    The errors of the channels of one unit are added, as if they were uncorrelated. So are those of
    the kernel positions of transposed and three-dimensional convolutions. The output of a recurrent
    layer is what its gates read. A group that none of these layers reads gets no scores.
    """
    scores = np.zeros(len(candidate.group.units))
    place = {unit: number for number, unit in enumerate(candidate.group.units)}
    scored = False
    for tensor, errors in candidate.measurements.errors:
        units = candidate.dependencies.units[tensor]
        indices = np.array([place.get(unit, -1) for unit in units])
        if (indices >= 0).any() and errors.sum() > 0:
            scored = True
            np.add.at(scores, indices[indices >= 0], errors[indices >= 0] / errors.sum())
    return scores if scored else None
