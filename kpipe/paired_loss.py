"""What a model loses against a reference on the same photos, and whether chance explains it.

    lost := photos that only the reference predicts correctly
    won  := photos that only the model predicts correctly
    loss := (lost - won) / photos, the fall of the accuracy

Photos on which both are right, or both are wrong, say nothing about the difference (McNemar 1947).

Two questions need two null hypotheses:

    may a file be refused?        H0: loss <= tolerance   the tolerance is a non-inferiority margin
    is another try worth it?      H0: loss <= 0           and is the observed loss > tolerance?

A refusal carries the burden of proof: a file whose true loss equals the tolerance is refused in at
most 5 % of all draws of the photos. A choice between models, such as how many layers stay in
float32, costs little, so a real loss is enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

__all__ = ["PairedLoss", "Verdict"]

_LEVEL = 0.05  # one-sided

Verdict = Literal["within", "undecided", "beyond"]


@dataclass(frozen=True)
class PairedLoss:
    """The counts of a comparison on the same photos.

    Args:
        photos: number of photos, 1 or more.
        lost: number of photos that only the reference predicts correctly.
        won: number of photos that only the model predicts correctly.

    Example:
        >>> from kpipe.paired_loss import PairedLoss
        >>> few = PairedLoss(photos=39, lost=3, won=1)
        >>> few.loss, few.verdict(0.01)
        (0.05, 'undecided')
        >>> PairedLoss(photos=3900, lost=300, won=100).verdict(0.01)
        'beyond'
    """

    photos: int
    lost: int
    won: int

    @classmethod
    def between(cls, reference: Any, model: Any) -> PairedLoss:
        """Count from what each of the two predicts correctly.

        Args:
            reference: whether the reference is right, booleans (photos,).
            model: the same of the model, in the same order.

        Example:
            >>> from kpipe.paired_loss import PairedLoss
            >>> PairedLoss.between([True, True, False], [True, False, False])
            PairedLoss(photos=3, lost=1, won=0)
        """
        before, after = np.asarray(reference, bool), np.asarray(model, bool)
        return cls(len(before), int((before & ~after).sum()), int((~before & after).sum()))

    @property
    def loss(self) -> float:
        """The fall of the accuracy; negative for a gain."""
        return (self.lost - self.won) / self.photos

    def p_value(self, margin: float = 0.0) -> float:
        """Return the one-sided p-value of H0: the true loss is at most the margin.

        Without a margin, this is McNemar's exact test: given the number of discordant photos,
        `lost` is binomial with probability 1/2. With one, that number must not be given: of a model
        that never wins, every discordant photo is a lost one, however many there are. So it is the
        tail of `lost - won` over all draws of the photos:

            p := P(L - W >= lost - won),  L, W multinomial with probabilities win + margin, win

        `win` is estimated by maximum likelihood under H0, in closed form, as in the score test of
        Nam (1997) and Tango (1998), which takes the tail of a normal distribution instead.

        Args:
            margin: a fraction of the photos, in [0, 1].

        Source:
            McNemar 1947, "Note on the sampling error of the difference between correlated
            proportions or percentages", Psychometrika 12. Dietterich 1998, "Approximate statistical
            tests for comparing supervised classification learning algorithms", Neural Computation
            10. Nam 1997, "Establishing equivalence of two treatments and sample size requirements
            in matched-pairs design", Biometrics 53. Tango 1998, "Equivalence test and confidence
            interval for the difference in proportions for the paired-sample design", Statistics in
            Medicine 17.

        Example:
            >>> from kpipe.paired_loss import PairedLoss
            >>> PairedLoss(photos=39, lost=3, won=1).p_value()
            0.3125
        """
        discordant = self.lost + self.won
        if not discordant:
            return 1.0
        # scipy.stats loads slowly, and most files lose nothing.
        from scipy.stats import binom

        if not margin:
            return float(binom.sf(self.lost - 1, discordant, 0.5))
        # The probability to win a photo under H0: the root of a w^2 + b w + c = 0.
        a = 2 * self.photos
        b = (2 * self.photos - self.lost + self.won) * margin - discordant
        c = -self.won * margin * (1 - margin)
        win = (math.sqrt(b * b - 4 * a * c) - b) / (2 * a)
        differ = min(2 * win + margin, 1.0)
        # Of d discordant photos, lost - won is at least the observed one from this many lost on.
        d = np.arange(self.photos + 1)
        least = np.ceil((d + self.lost - self.won) / 2)
        tails = binom.sf(least - 1, d, (win + margin) / (2 * win + margin))
        return min(float(binom.pmf(d, self.photos, differ) @ tails), 1.0)

    def verdict(self, tolerance: float) -> Verdict:
        """Judge the loss by a tolerance.

        Args:
            tolerance: a fraction of the photos, in [0, 1].

        Returns:
            "within": the observed loss is at most the tolerance. "beyond": so few photos cannot
            explain it, H0: loss <= tolerance is rejected at 5 %. "undecided": it is larger, and
            there are too few photos to tell it from chance.
        """
        if self._within(tolerance):
            return "within"
        return "beyond" if self.p_value(tolerance) <= _LEVEL else "undecided"

    def acceptable(self, tolerance: float) -> bool:
        """Whether the observed loss is within the tolerance, or no more than chance.

        For choices between models: H0 is that there is no loss at all.
        """
        return self._within(tolerance) or self.p_value() > _LEVEL

    def describe(self, photos: str) -> str:
        """Return the counts in words; `photos` names the photos.

        Example:
            >>> from kpipe.paired_loss import PairedLoss
            >>> PairedLoss(photos=39, lost=3, won=1).describe("test photos")
            '3 of 39 test photos lost, 1 won'
        """
        return f"{self.lost:,} of {self.photos:,} {photos} lost, {self.won:,} won"

    def _within(self, tolerance: float) -> bool:
        # Not the quotient: 3 of 100 photos are within 0.03.
        net, allowed = self.lost - self.won, tolerance * self.photos
        return net <= allowed or math.isclose(net, allowed)
