"""Measurements on data that the criteria share: made once for all groups, on first use."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from kpipe.prune.dependencies.dependency_graph import DependencyGraph
from kpipe.prune.graph.outlets import Outlet, find_outlet, readers
from kpipe.prune.ranking.activations import ActivationStatistics, probe_activations
from kpipe.prune.ranking.reconstruction_errors import (
    CONSUMER_KINDS,
    channel_errors,
    second_moments,
)

__all__ = ["Measurements"]


class Measurements:
    """Activations, reconstruction errors and scales of a model.

    Args:
        dependencies: of a model of one input and one output.
        data: batches; read once for each kind of measurement.
    """

    def __init__(self, dependencies: DependencyGraph, data: Any) -> None:
        self.dependencies = dependencies
        # An iterator can be read only once.
        self.data = list(data) if isinstance(data, Iterator) else data
        self._activity: dict[bool, dict[str, ActivationStatistics]] = {}

    @cached_property
    def outlets(self) -> dict[str, Outlet]:
        """Layer name -> where its filters are read, for every layer that makes units of a group."""
        graph = self.dependencies.graph
        read = readers(graph)
        names = dict.fromkeys(name for group in self.dependencies.groups for name in group.members)
        return {layer.name: find_outlet(graph, layer, read) for layer in graph.find(names)}

    def activity(self, *, labels: bool) -> dict[str, ActivationStatistics]:
        """Return layer name -> statistics of its channels, after normalization and activation.

        Args:
            labels: whether to measure the effect on the loss.
        """
        if labels not in self._activity:
            probed = dict.fromkeys(outlet.operation for outlet in self.outlets.values())
            found = probe_activations(self.dependencies, probed).measure(self.data, labels=labels)
            self._activity[labels] = {
                name: found[outlet.operation] for name, outlet in self.outlets.items()
            }
        return self._activity[labels]

    @cached_property
    def errors(self) -> list[tuple[int, np.ndarray]]:
        """(tensor, error without each of its channels) for each layer that reads a tensor."""
        graph, locked = self.dependencies.graph, self.dependencies.locked
        found = [
            (operation, call.inputs[0])
            for operation in graph.operations
            for call in operation.calls
            if operation.kind in CONSUMER_KINDS
            and not locked[self.dependencies.units[call.inputs[0]]].all()
        ]
        places = {
            tensor: (operation.name, number)
            for operation in graph.operations
            for number, tensor in enumerate(t for call in operation.calls for t in call.outputs)
        }
        makers = {tensor: places[tensor] for _, tensor in found}
        probe = probe_activations(
            self.dependencies, dict.fromkeys(name for name, _ in makers.values())
        )
        sources = [probe.places[makers[t][0]][makers[t][1]] for _, t in found]
        operations = [operation for operation, _ in found]
        moments = probe.average(
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
        """Return gamma of the BatchNormalization after a layer, (channels,), or None."""
        name = self.outlets[layer].normalization
        if name is None:
            return None
        (normalization,) = self.dependencies.graph.find([name])
        places = list(normalization.weights)
        if "gamma" not in places:
            return None
        gamma: np.ndarray = normalization.source.weights[places.index("gamma")].numpy()
        return gamma
