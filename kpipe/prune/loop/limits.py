"""What must stay while a model is cut to milliseconds: of each group, and of the blocks.

Minimum fractions and maximum ratios are shares of the filters that the model had at first, and are
counted in the groups that there are now: without a block, groups may be joined, or named by
another layer.
"""

from __future__ import annotations

from collections import Counter

import keras

from kpipe.prune.dependencies.dependency_graph import DependencyGraph, build_dependencies
from kpipe.prune.graph.model_graph import Graph, needed_calls
from kpipe.prune.graph.tracing import read
from kpipe.prune.loop.selection import Selection, at_floors, check_ceilings, floors
from kpipe.prune.surgery.block_removal import remove_blocks
from kpipe.prune.surgery.planning import plan_units, remove_filters
from kpipe.prune.surgery.residual_blocks import find_residual_blocks

__all__ = ["Limits"]


class Limits:
    """Limits of a model and of those that removals make of it.

    Args:
        model: as it was at first.
        selection: `min_filters_fraction`, `round_to`, `max_pruning_ratio`, `ignored_layers` and
            `blocks` of it.
    """

    def __init__(self, model: keras.Model, selection: Selection) -> None:
        self._model, self._selection = model, selection
        self._blocks = [block.name for block in find_residual_blocks(read(model))]
        groups = build_dependencies(read(model), selection.ignored_layers).groups
        check_ceilings(groups, selection.max_pruning_ratio)
        self._ceilings = [
            (set(group.members), selection.max_pruning_ratio[group.name])
            for group in groups
            if group.name in selection.max_pruning_ratio
        ]

    def blocks(self, graph: Graph) -> dict[str, set[str]]:
        """Name of each residual block that may go -> the operations that go with it.

        Those stay that hold layers of `ignored_layers`, all layers of a group of
        `max_pruning_ratio` below 1, or one of several calls of a layer.
        """
        if not self._selection.blocks:
            return {}
        full = [layers for layers, ceiling in self._ceilings if ceiling < 1]
        found = {}
        for block in find_residual_blocks(graph):
            left = Counter(place for place, _ in needed_calls(graph, {block.sum: block.shortcut}))
            gone = {op.name for place, op in enumerate(graph.operations) if not left[place]}
            whole = all(left[n] in (0, len(op.calls)) for n, op in enumerate(graph.operations))
            held = gone & set(self._selection.ignored_layers) or any(
                layers <= gone for layers in full
            )
            if whole and not held and block.name in self._blocks:
                found[block.name] = gone
        return found

    def least(self, graph: Graph) -> dict[str, int]:
        """Name of a group -> units that it keeps at least, for a graph that removals left."""
        names = {operation.name for operation in graph.operations}
        return self._floors([name for name in self._blocks if name not in names])[2]

    def smallest(self) -> keras.Model:
        """All blocks gone that may go, and every group at its floor."""
        model, dependencies, least = self._floors(list(self.blocks(read(self._model))))
        return remove_filters(model, plan_units(dependencies, at_floors(dependencies, least)))

    def _floors(self, gone: list[str]) -> tuple[keras.Model, DependencyGraph, dict[str, int]]:
        """The first model without some blocks, its coupling and its floors."""
        chosen = self._selection
        model = remove_blocks(self._model, gone) if gone else self._model
        dependencies = build_dependencies(read(model), chosen.ignored_layers)
        max_pruning_ratio = {
            group.name: min(shares)
            for group in dependencies.groups
            if (shares := [c for layers, c in self._ceilings if layers & set(group.members)])
        }
        return (
            model,
            dependencies,
            floors(
                dependencies.groups, chosen.min_filters_fraction, chosen.round_to, max_pruning_ratio
            ),
        )
