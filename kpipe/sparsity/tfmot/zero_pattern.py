"""Where the zeros of a pruned kernel lie.

anywhere     a fraction of the weights
blocks       a fraction of the rectangles of (inputs, outputs), zero as a whole
m by n       m zeros in every n weights in a row along the input channels
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tf_keras

from kpipe.errors import SparsityError
from kpipe.sparsity.tfmot.training_settings import refuse_invalid
from kpipe.sparsity.tfmot.wrapping import KERNELS

__all__ = ["ZeroPattern"]


@dataclass(frozen=True)
class ZeroPattern:
    """The zeros that `prune_magnitude` is asked for; it describes the arguments.

    Raises:
        SparsityError: for values out of range.
    """

    sparsity: float | None
    m_by_n: tuple[int, int] | None
    block_size: tuple[int, int]

    def __post_init__(self) -> None:
        if (self.sparsity is None) == (self.m_by_n is None):
            raise SparsityError(
                "the sparsity is not clear",
                expected="either sparsity= or m_by_n=",
                received=f"sparsity={self.sparsity}, m_by_n={self.m_by_n}",
            )
        valid = {f"block_size={self.block_size!r}": min(self.block_size) >= 1}
        if self.sparsity is not None:
            valid[f"sparsity={self.sparsity!r}"] = 0 < self.sparsity < 1
        if self.m_by_n is not None:
            zeros, length = self.m_by_n
            valid[f"m_by_n={self.m_by_n!r}"] = 1 <= zeros < length and not self.has_blocks
        refuse_invalid(
            valid,
            expected="sparsity in (0, 1), m_by_n=(2, 4) with m below n and without blocks, "
            "block_size of two numbers of 1 or more",
        )

    @property
    def has_blocks(self) -> bool:
        """Whether zeros come in blocks of more than one weight."""
        return self.block_size != (1, 1)

    @property
    def fraction(self) -> float:
        """The fraction of zeros."""
        if self.m_by_n is not None:
            return self.m_by_n[0] / self.m_by_n[1]
        assert self.sparsity is not None
        return self.sparsity

    def fits(self, layer: Any) -> bool:
        """Return whether the kernel of a tf_keras layer can have such zeros."""
        if type(layer) not in ((tf_keras.layers.Dense,) if self.has_blocks else KERNELS):
            return False
        if self.m_by_n is not None:
            zeros, length = self.m_by_n
            return bool(layer.kernel.shape[-2] > length - zeros)  # or no row of n holds a zero
        return not self.has_blocks or all(np.greater(layer.kernel.shape, self.block_size))

    def is_reached(self, kernel: np.ndarray) -> bool:
        """Return whether a kernel has the zeros; equal magnitudes and rounding may cost a few."""
        zero = kernel == 0
        if self.m_by_n is not None:
            return self._fraction_of_rows(zero) >= 1
        fraction = self._fraction_of_blocks(zero) if self.has_blocks else float(zero.mean())
        return fraction >= self.fraction - max(0.1, 1 / zero.size)

    def _fraction_of_rows(self, zero: np.ndarray) -> float:
        assert self.m_by_n is not None
        zeros, length = self.m_by_n
        rows = np.moveaxis(zero, -2, -1)
        padding = [(0, 0)] * (rows.ndim - 1) + [(0, -rows.shape[-1] % length)]
        rows = np.pad(rows, padding, constant_values=True).reshape(-1, length)
        return float(np.mean(rows.sum(-1) >= zeros))

    def _fraction_of_blocks(self, zero: np.ndarray) -> float:
        height, width = self.block_size
        padding = [(0, -zero.shape[0] % height), (0, -zero.shape[1] % width)]
        padded = np.pad(zero, padding, mode="edge")
        grid = padded.reshape(padded.shape[0] // height, height, padded.shape[1] // width, width)
        return float(grid.all(axis=(1, 3)).mean())
