"""What one ranking measures, once for all groups."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import keras
import numpy as np

from kpipe.prune.dependencies.dependency_graph import DependencyGraph
from kpipe.prune.graph.outlets import Outlet, find_outlet, readers
from kpipe.prune.ranking.activity import Activity, watch
from kpipe.prune.ranking.readers import READERS, channel_errors, second_moments

__all__ = ["Measured"]


class Measured:
    """A model on data, looked at where the answers of its filters are read.

    Args:
        dependencies: the model's groups.
        model: of one input and one output.
        data: batches; run through once for each kind of measurement.
    """

    def __init__(self, dependencies: DependencyGraph, model: keras.Model, data: Any) -> None:
        self.dependencies = dependencies
        self.model = model
        # Every pass reads it from the start, which an iterator allows once.
        self.data = list(data) if isinstance(data, Iterator) else data
        self._activity: dict[bool, dict[str, Activity]] = {}

    @cached_property
    def outlets(self) -> dict[str, Outlet]:
        """Layer name -> its outlet, for every layer that makes units of a group."""
        graph = self.dependencies.graph
        read = readers(graph)
        names = dict.fromkeys(name for group in self.dependencies.groups for name in group.members)
        return {layer.name: find_outlet(graph, layer, read) for layer in graph.find(names)}

    def activity(self, *, labels: bool) -> dict[str, Activity]:
        """Layer name -> what its channels do at its outlet.

        Args:
            labels: whether the effect on the loss is asked for.
        """
        if labels not in self._activity:
            wanted = dict.fromkeys(outlet.operation for outlet in self.outlets.values())
            found = watch(self.model, wanted).measure(self.data, labels=labels)
            self._activity[labels] = {
                name: found[outlet.operation] for name, outlet in self.outlets.items()
            }
        return self._activity[labels]

    @cached_property
    def errors(self) -> list[tuple[int, np.ndarray]]:
        """(tensor, error of its reader's output without each of its channels), for each reader."""
        graph, frozen = self.dependencies.graph, self.dependencies.frozen
        found = [
            (operation, call.inputs[0])
            for operation in graph.operations
            for call in operation.calls
            if operation.kind in READERS
            and not frozen[self.dependencies.units[call.inputs[0]]].all()
        ]
        places = {
            tensor: (operation.name, number)
            for operation in graph.operations
            for number, call in enumerate(operation.calls)
            for tensor in call.outputs
        }
        makers = {tensor: places[tensor] for _, tensor in found}
        watched = watch(self.model, dict.fromkeys(name for name, _ in makers.values()))
        sources = [watched.places[makers[t][0]][makers[t][1]] for _, t in found]
        operations = [operation for operation, _ in found]
        moments = watched.average(
            self.data,
            lambda outputs: [
                second_moments(operation, outputs[place])
                for operation, place in zip(operations, sources, strict=True)
            ],
        )
        return [
            (tensor, channel_errors(operation, moment))
            for (operation, tensor), moment in zip(found, moments, strict=True)
        ]

    def scale(self, layer: str) -> np.ndarray | None:
        """The gamma of the BatchNormalization after a layer, (channels,), where there is one."""
        name = self.outlets[layer].normalization
        if name is None:
            return None
        (normalization,) = self.dependencies.graph.find([name])
        places = list(normalization.weights)
        if "gamma" not in places:
            return None
        gamma: np.ndarray = normalization.source.weights[places.index("gamma")].numpy()
        return gamma
