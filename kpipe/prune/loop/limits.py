"""What must stay when a model is pruned to a latency: filters of each group, and blocks.

`min_filters_fraction` and `max_pruning_ratio` are fractions of the filters of the original model.
Groups can change when a block is removed: they may be joined, or named after another layer.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import keras

from kpipe.prune.dependencies.dependency_graph import DependencyGraph, build_dependencies
from kpipe.prune.graph.model_graph import Graph, needed_calls
from kpipe.prune.loop.selection import (
    Selection,
    check_max_pruning_ratio,
    largest_removal,
    min_units,
)
from kpipe.prune.surgery.block_removal import without_blocks
from kpipe.prune.surgery.planning import apply_plan, plan_units
from kpipe.prune.surgery.residual_blocks import find_residual_blocks

__all__ = ["Limits"]


class Limits:
    """The limits for a model and for the models that removals make of it.

    Args:
        original: the dependency graph of the original model.
        selection: its `min_filters_fraction`, `round_to`, `max_pruning_ratio`, `ignored_layers` and
            `blocks` apply.
    """

    def __init__(self, original: DependencyGraph, selection: Selection) -> None:
        self._original, self._selection = original, selection
        self._blocks = [block.name for block in find_residual_blocks(original.graph)]
        check_max_pruning_ratio(original.groups, selection.max_pruning_ratio)
        self._max_ratios = [
            (set(group.members), selection.max_pruning_ratio[group.name])
            for group in original.groups
            if group.name in selection.max_pruning_ratio
        ]

    def blocks(self, graph: Graph) -> dict[str, set[str]]:
        """Return name of each residual block that may be removed -> the operations removed with it.

        A block stays if it holds layers of `ignored_layers`, all layers of a group whose
        `max_pruning_ratio` is below 1, or only some of the calls of a layer.
        """
        if not self._selection.blocks:
            return {}
        limited = [layers for layers, ratio in self._max_ratios if ratio < 1]
        found = {}
        for block in find_residual_blocks(graph):
            left = Counter(place for place, _ in needed_calls(graph, {block.sum: block.shortcut}))
            gone = {op.name for place, op in enumerate(graph.operations) if not left[place]}
            whole = all(left[n] in (0, len(op.calls)) for n, op in enumerate(graph.operations))
            held = gone & set(self._selection.ignored_layers) or any(
                layers <= gone for layers in limited
            )
            if whole and not held and block.name in self._blocks:
                found[block.name] = gone
        return found

    def min_units(self, graph: Graph) -> dict[str, int]:
        """Return group name -> minimum number of units to keep, for a model after removals."""
        names = {operation.name for operation in graph.operations}
        return self._min_units(self._without([name for name in self._blocks if name not in names]))

    def smallest(self) -> keras.Model:
        """Return the model without all blocks that may be removed, every group at its minimum."""
        dependencies = self._without(list(self.blocks(self._original.graph)))
        removed = largest_removal(dependencies, self._min_units(dependencies))
        return apply_plan(dependencies, plan_units(dependencies, removed))

    def _without(self, blocks: list[str]) -> DependencyGraph:
        """The original model without some blocks."""
        if not blocks:
            return self._original
        model = without_blocks(self._original.model, self._original.graph, blocks)
        return build_dependencies(model, self._selection.ignored_layers)

    def _min_units(self, dependencies: DependencyGraph) -> dict[str, int]:
        joined = {
            group.name: min(ratios)
            for group in dependencies.groups
            if (ratios := [r for layers, r in self._max_ratios if layers & set(group.members)])
        }
        return min_units(dependencies.groups, replace(self._selection, max_pruning_ratio=joined))
