"""What a model may cost: multiply-accumulates, parameters or milliseconds.

argument       limit                   cost after a removal
macs=0.5       half of the original    computed from the graph
params=0.5     half of the original    computed from the graph
latency_ms=3   3 milliseconds          measured, see `kpipe.prune.loop.latency_search`
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

from kpipe.errors import PruneError
from kpipe.prune.dependencies.dependency_graph import DependencyGraph
from kpipe.prune.dependencies.macs import count_params, graph_macs, kept_width, mac_terms
from kpipe.prune.surgery.planning import count_kept_params

__all__ = ["Latency", "RemovalCost", "Target", "find_target"]

Latency = Callable[[keras.Model], float]
RemovalCost = Callable[[np.ndarray], float]

# A counted cost meets a limit to four digits. Half of the filters often cost 0.50002 of the
# original, because the classifier keeps its outputs; another chunk would overshoot by far.
_MET = 1 + 1e-4


@dataclass(frozen=True)
class Target:
    """The cost that a model must not exceed.

    Args:
        argument: "macs", "params" or "latency_ms".
        value: the value of the argument.
        latency: (uncompiled model) -> milliseconds; None for other targets.
    """

    argument: str
    value: float
    latency: Latency | None

    def cost(self, dependencies: DependencyGraph) -> float:
        """Return what a model costs, in the unit of the target."""
        if self.argument == "macs":
            return graph_macs(dependencies.graph)
        if self.argument == "params":
            return count_params(dependencies.model)
        return self.milliseconds(dependencies.model)

    def milliseconds(self, model: keras.Model) -> float:
        """Return the latency of a model, for a target of latency."""
        assert self.latency is not None
        return float(self.latency(model))

    def limit(self, original: float, progress: float = 1.0) -> float:
        """Return what a model may cost.

        Args:
            original: the cost of the original model.
            progress: fraction of the rounds done, in (0, 1]; the limit falls geometrically.
        """
        limit = self.value if self.latency is not None else self.value * original
        # The last limit is exact.
        return limit if progress == 1 else original * (limit / original) ** progress

    def most(self, limit: float) -> float:
        """Return the highest cost that meets a limit; counted costs meet it to four digits."""
        return limit if self.latency is not None else limit * _MET

    def removal_cost(self, dependencies: DependencyGraph) -> RemovalCost:
        """Return (mask of the units removed) -> cost of the model; not for a target of latency."""
        if self.argument == "params":
            return lambda removed: count_kept_params(dependencies, removed)
        terms = mac_terms(dependencies.graph)

        def macs(removed: np.ndarray) -> float:
            width = kept_width(dependencies, removed)
            return sum(term.macs(width) for term in terms)

        return macs

    def format_cost(self, cost: float, original: float) -> str:
        """Return a cost as a value of the argument, rounded up."""
        if self.latency is not None:
            return f"latency_ms={np.ceil(cost * 1e3) / 1e3:.3f}"
        return f"{self.argument} of at least {np.ceil(cost / original * 1e4) / 1e4:.4f}"


def find_target(
    macs: float | None, params: float | None, latency_ms: float | None, latency: Latency | None
) -> Target:
    """Return the one target among the arguments of `prune_filters`.

    Raises:
        PruneError: no target or several, a value out of range, or latency_ms without latency.
    """
    options = {"macs": macs, "params": params, "latency_ms": latency_ms}
    targets = {name: value for name, value in options.items() if value is not None}
    received = ", ".join(f"{name}={value}" for name, value in targets.items())
    if len(targets) != 1:
        raise PruneError(
            "pruning needs one target",
            expected="one of macs, params, latency_ms",
            received=received or "none of them",
        )
    ((argument, value),) = targets.items()
    value = float(value)
    if argument != "latency_ms":
        if not 0 < value < 1:
            raise PruneError(
                f"{argument} is out of range",
                expected=f"the fraction of {argument} to keep, in (0, 1)",
                received=received,
            )
        return Target(argument, value, None)
    if not value > 0:
        raise PruneError(
            "latency_ms is out of range", expected="milliseconds, above 0", received=received
        )
    if latency is None:
        raise PruneError(
            "latency_ms needs latency, to measure models by",
            expected="latency, a function from a model to milliseconds",
            received=f"{received}, latency=None",
            fix="latency=kpipe.lite.latency measures the converted model in LiteRT",
        )
    return Target(argument, value, latency)
