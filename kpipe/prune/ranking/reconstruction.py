"""How much worse whoever reads a filter computes without it; no gradient is needed.

    y  = sum over channels c of W_c * x_c            what a reader computes
    error(c) = E |W_c * x_c|^2                       what is missing of y without channel c
             = sum over k, j of <W_kc, W_jc> E[x_(p+k)c x_(p+j)c]

for the places k, j of the kernel and all positions p. The choice of channels by the error of what
is computed from them is that of ThiNet (Luo et al. 2017, arXiv 1707.06342, equation 6).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from kpipe.prune.ranking.ranking import Candidate

__all__ = ["reconstruction"]


def reconstruction(candidate: Candidate) -> np.ndarray | None:
    """Share of its readers' output that is lost with each unit, summed over the readers.

    Of a unit of several channels the errors are added, as if these were not correlated. For
    transposed and three-dimensional convolutions the places of the kernel are taken so as well. A
    group that no convolution or dense layer reads is not judged.
    """
    scores = np.zeros(len(candidate.group.units))
    place = {unit: number for number, unit in enumerate(candidate.group.units)}
    judged = False
    for tensor, errors in candidate.measured.errors:
        units = candidate.dependencies.units[tensor]
        ours = np.array([place.get(unit, -1) for unit in units])
        if (ours >= 0).any() and errors.sum() > 0:
            judged = True
            np.add.at(scores, ours[ours >= 0], errors[ours >= 0] / errors.sum())
    return scores if judged else None
