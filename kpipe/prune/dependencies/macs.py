"""Multiply-accumulates and parameters.

    kind                    multiply-accumulates for one image
    convolution             output spots * kernel spots * input channels / groups * filters
    depthwise convolution   output spots * kernel spots * output channels
    separable convolution   output spots * input channels * multiplier * (kernel spots + filters)
    transposed convolution  input spots * kernel spots * input channels * filters
    dense                   output spots * inputs * units

where spots is height * width. Biases, normalization, activations, pooling and additions are not
counted: they are a few percent, and a converter folds many of them away.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

from kpipe.prune.dependencies.dependency_graph import DependencyGraph, build_dependencies
from kpipe.prune.dependencies.registry import rule_of
from kpipe.prune.dependencies.rules import positions
from kpipe.prune.graph.model_graph import Graph, Operation
from kpipe.prune.graph.tracing import read

__all__ = ["Terms", "count_macs", "count_params", "kept_width", "prunable_fraction", "terms"]

Width = Callable[[int], int]


@dataclass(frozen=True)
class Terms:
    """One call that costs multiply-accumulates, as a function of its numbers of channels.

    Args:
        operation: what is called.
        read: number of the tensor read.
        made: number of the tensor made.
        spots: spatial positions of the two, in all rows of the batch that an image has there.
    """

    operation: Operation
    read: int
    made: int
    spots: tuple[int, int]

    def macs(self, width: Width) -> int:
        """Multiply-accumulates when each tensor has `width(tensor)` channels."""
        rule = rule_of(self.operation)
        assert rule is not None and rule.macs is not None
        return rule.macs(self.operation, *self.spots, width(self.read), width(self.made))


def terms(graph: Graph) -> list[Terms]:
    """Every call in a graph that costs multiply-accumulates.

    Raises:
        PruneError: the image size is not fixed.
    """
    found, rows = [], _rows(graph)
    for operation in graph.operations:
        rule = rule_of(operation)
        for call in operation.calls if rule is not None and rule.macs is not None else ():
            read, made = call.inputs[0], call.outputs[0]
            before, after = (rows[t] * positions(graph.shapes[t]) for t in (read, made))
            found.append(Terms(operation, read, made, (before, after)))
    return found


def _rows(graph: Graph) -> dict[int, int]:
    """Tensor number -> rows of the batch for each image: a raw reshape may lay positions there."""
    rows: dict[int, int] = {}
    for place, use in graph.order:
        operation = graph.operations[place]
        call = operation.calls[use]
        given = max((rows[tensor] for tensor in call.inputs), default=1)
        for tensor in call.outputs:
            rows[tensor] = given
            if operation.kind == "ops.Reshape":
                before, after = (
                    math.prod(int(size or 0) for size in graph.shapes[t][1:])  # 0: an open one
                    for t in (call.inputs[0], tensor)
                )
                rows[tensor] = given * before // after if before and after else given
    return rows


def count_macs(model: keras.Model) -> int:
    """Multiply-accumulates of the model for one image; see the module's table.

    Args:
        model: a built Functional or Sequential model of fixed image size.

    Warns:
        UserWarning: layers that have no rule but matrices of weights; they count as 0.
    """
    graph = read(model)
    uncounted = [
        f"{operation.name!r} ({operation.kind})"
        for operation in graph.operations
        if rule_of(operation) is None and any(len(s) > 1 for s in operation.weights.values())
    ]
    if uncounted:
        warnings.warn(
            f"no rule counts the multiply-accumulates of {', '.join(uncounted)}: counted as 0",
            stacklevel=2,
        )
    return sum(term.macs(graph.channels) for term in terms(graph))


def count_params(model: keras.Model) -> int:
    """Parameters of the model, trainable or not."""
    return int(sum(math.prod(weight.shape) for weight in model.weights))


def prunable_fraction(model: keras.Model) -> float:
    """The share of the model's multiply-accumulates that can be removed, in [0, 1].

    What goes when every removable filter goes: the work of making its output and the work of
    reading it. What stays is between channels that are protected on both sides.
    """
    graph = read(model)
    dependencies = build_dependencies(graph)
    costs = terms(graph)
    total = sum(term.macs(graph.channels) for term in costs)
    stays = sum(term.macs(kept_width(dependencies, ~dependencies.frozen)) for term in costs)
    return 1 - stays / total if total else 0.0


def kept_width(dependencies: DependencyGraph, removed: np.ndarray) -> Width:
    """Tensor number -> channels left when the units marked in `removed` (units,) are gone."""
    return lambda tensor: int(np.count_nonzero(~removed[dependencies.units[tensor]]))
