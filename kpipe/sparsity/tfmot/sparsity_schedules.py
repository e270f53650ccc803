"""When the zeros of magnitude pruning appear, with s the final sparsity and T the end of the ramp.

polynomial   sparsity at step t = s - s * (1 - t / T)^3; the masks stay after T
             (Zhu and Gupta 2017, arXiv:1710.01878)
constant     sparsity = s from a step on; the masks are updated until the end
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from kpipe.sparsity.tfmot.loading import tfmot
from kpipe.wrong_kinds import names_wrong_kinds_of_fields

__all__ = ["SCHEDULES", "ConstantSparsity", "PolynomialSparsity", "SparsitySchedule"]


@names_wrong_kinds_of_fields
@dataclass(frozen=True)
class PolynomialSparsity:
    """A growing fraction of zeros.

    Args:
        ramp: fraction of all steps after which the final sparsity is reached, in (0, 1].
        updates: maximum number of mask updates in the ramp, 1 or more.

    Example:
        >>> from kpipe.sparsity import PolynomialSparsity
        >>> schedule = PolynomialSparsity(ramp=0.5, updates=10).to_tfmot(0.8, steps=1000)
        >>> schedule.end_step, schedule.frequency
        (500, 50)
    """

    ramp: float = 0.7
    updates: int = 20

    def to_tfmot(self, sparsity: float, steps: int) -> Any:
        """Return TFMOT's schedule for a final sparsity and a number of training steps."""
        ramp = max(1, int(steps * self.ramp))
        frequency = max(1, ramp // self.updates)
        return tfmot.sparsity.keras.PolynomialDecay(
            initial_sparsity=0.0,
            final_sparsity=sparsity,
            begin_step=0,
            end_step=ramp - ramp % frequency,  # TFMOT acts on multiples of the frequency only
            frequency=frequency,
        )


@names_wrong_kinds_of_fields
@dataclass(frozen=True)
class ConstantSparsity:
    """All zeros at once.

    Args:
        begin: fraction of all steps after which the zeros appear, in [0, 1).
        updates: maximum number of mask updates from then on, 1 or more.

    Example:
        >>> from kpipe.sparsity import ConstantSparsity
        >>> schedule = ConstantSparsity(begin=0.5, updates=10).to_tfmot(0.8, steps=1000)
        >>> schedule.begin_step, schedule.frequency
        (500, 50)
    """

    begin: float = 0.0
    updates: int = 20

    def to_tfmot(self, sparsity: float, steps: int) -> Any:
        """Return TFMOT's schedule for a sparsity and a number of training steps."""
        begin = min(int(steps * self.begin), steps - 1)
        frequency = max(1, (steps - begin) // self.updates)
        return tfmot.sparsity.keras.ConstantSparsity(sparsity, begin, frequency=frequency)


SparsitySchedule: TypeAlias = PolynomialSparsity | ConstantSparsity
SCHEDULES: dict[str, SparsitySchedule] = {
    "polynomial": PolynomialSparsity(),
    "constant": ConstantSparsity(),
}
