"""What a model may cost: multiply-accumulates, parameters or milliseconds.

asked          limit               price of removing units
macs=0.5       half of its own     arithmetic on the graph
params=0.5     half of its own     arithmetic on the graph
latency_ms=3   3 milliseconds      measured: see `kpipe.prune.loop.latency_search`
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

from kpipe.errors import PruneError
from kpipe.prune.dependencies.dependency_graph import DependencyGraph
from kpipe.prune.dependencies.macs import count_macs, count_params, kept_width, terms
from kpipe.prune.surgery.planning import count_kept_params

__all__ = ["Latency", "Price", "Target", "find_target"]

Latency = Callable[[keras.Model], float]
Price = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Target:
    """What is asked of a model.

    Args:
        argument: what it was asked by: "macs", "params" or "latency_ms".
        value: the number that was given.
        latency: (uncompiled model) -> milliseconds; None where time is not asked for.
    """

    argument: str
    value: float
    latency: Latency | None

    def cost(self, model: keras.Model) -> float:
        """What a model costs, in the unit of the target."""
        if self.argument == "macs":
            return count_macs(model)
        return count_params(model) if self.latency is None else float(self.latency(model))

    def limit(self, whole: float, done: float = 1.0) -> float:
        """What a model may cost, where the model as it was costs `whole`.

        Args:
            whole: in the unit of the target.
            done: the share of the rounds that is over, in (0, 1]; the cost falls geometrically.
        """
        limit = self.value if self.latency is not None else self.value * whole
        # The last one is met to the last bit.
        return limit if done == 1 else whole * (limit / whole) ** done

    def price(self, dependencies: DependencyGraph) -> Price:
        """(units to remove, a mark for each) -> what the model then costs; not for a latency."""
        if self.argument == "params":
            return lambda removed: count_kept_params(dependencies, removed)
        costs = terms(dependencies.graph)

        def macs(removed: np.ndarray) -> float:
            width = kept_width(dependencies, removed)
            return sum(term.macs(width) for term in costs)

        return macs

    def told(self, cost: float, whole: float) -> str:
        """A cost as one would ask for it, rounded up."""
        if self.latency is not None:
            return f"latency_ms={np.ceil(cost * 1e3) / 1e3:.3f}"
        return f"{self.argument} of at least {np.ceil(cost / whole * 1e4) / 1e4:.4f}"


def find_target(
    macs: float | None, params: float | None, latency_ms: float | None, latency: Latency | None
) -> Target:
    """The one target among the arguments of `prune_filters`.

    Raises:
        PruneError: none or several, a share that is none, or a time without a way to measure it.
    """
    given = {
        name: value
        for name, value in (("macs", macs), ("params", params), ("latency_ms", latency_ms))
        if value is not None
    }
    received = ", ".join(f"{name}={value!r}" for name, value in given.items()) or "none of them"
    if len(given) != 1:
        raise PruneError(
            "pruning needs one target",
            expected="one of macs, params, latency_ms",
            received=received,
        )
    ((argument, value),) = given.items()
    if not isinstance(value, numbers.Real):
        raise PruneError("a target is a number", expected=f"{argument}=0.5", received=received)
    value = float(value)
    if argument == "latency_ms":
        if not value > 0 or latency is None:
            raise PruneError(
                "the loop has no target it could reach",
                expected="latency_ms above 0, and latency, a function from a model to milliseconds",
                received=f"{received}, latency={latency}",
                fix="latency=kpipe.lite.latency measures the converted model by LiteRT",
            )
        return Target(argument, value, latency)
    if not 0 < value < 1:
        raise PruneError(
            "the loop has no target it could reach",
            expected=f"{argument}, a share of the model's own, in (0, 1)",
            received=received,
        )
    return Target(argument, value, None)
