"""What a pruning loop was asked for: its target, criterion, selection, rounds and tolerance."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kpipe.errors import PruneError
from kpipe.prune.graph.model_graph import Graph
from kpipe.prune.loop.rounds import Round
from kpipe.prune.loop.selection import Selection
from kpipe.prune.loop.targets import Target
from kpipe.prune.ranking.candidate import Criterion
from kpipe.prune.ranking.ranking import find_criterion

__all__ = ["LoopConfig"]


@dataclass(frozen=True)
class LoopConfig:
    """The arguments of `prune_filters`, checked; see there."""

    target: Target
    criterion: str | Criterion
    selection: Selection
    calibration: Iterable[Any] | None
    rounds: int
    tolerance: float | None

    def __post_init__(self) -> None:
        find_criterion(self.criterion)
        if self.rounds < 1:
            raise PruneError(
                "rounds is out of range",
                expected="a whole number of at least 1",
                received=f"rounds={self.rounds}",
            )
        if self.tolerance is not None and not self.tolerance >= 0:
            raise PruneError(
                "tolerance is out of range",
                expected="0 or more, in the unit of the score, or None",
                received=f"tolerance={self.tolerance}",
            )

    def identity(self, model: keras.Model, graph: Graph) -> dict[str, Any]:
        """Return what a stored loop must have in common with this one to be resumed."""
        selection = self.selection
        digest = hashlib.sha256()
        for operation in graph.operations:
            digest.update(f"{operation.name} {operation.kind}".encode())
        for weight in model.weights:
            digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
        return {
            "target": [self.target.argument, float(self.target.value)],
            "rounds": int(self.rounds),
            "criterion": getattr(self.criterion, "__qualname__", str(self.criterion)),
            "tolerance": self.tolerance,
            "refitted": self.calibration is not None,
            "round_to": selection.round_to,
            "min_filters_fraction": selection.min_filters_fraction,
            "normalize": selection.normalize,
            "max_pruning_ratio": dict(selection.max_pruning_ratio),
            "ignored_layers": sorted(selection.ignored_layers),
            "seed": selection.seed,
            "blocks": selection.blocks if self.target.latency is not None else None,
            "model": digest.hexdigest(),
        }

    def stop_reason(self, history: Sequence[Round]) -> str:
        """Return how far the last score is below the tolerance; empty if it is not."""
        first, last, loss = history[0].after, history[-1].after, history[-1].loss
        if self.tolerance is None or last >= first - self.tolerance:
            return ""
        if loss is not None:
            if loss.acceptable(self.tolerance):
                return ""
            return (
                f"round {history[-1].round}: {loss.describe('images')} against the original model, "
                f"more than {self.tolerance:g} of them, and beyond chance"
            )
        return (
            f"round {history[-1].round} scores {last:.4g}, more than {self.tolerance:g} below the "
            f"{first:.4g} of the original model"
        )
