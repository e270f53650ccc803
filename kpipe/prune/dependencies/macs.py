"""Multiply-accumulates and parameters.

    layer                   multiply-accumulates for one image
    convolution             output positions * kernel positions * input channels / groups * filters
    depthwise convolution   output positions * kernel positions * output channels
    separable convolution   output positions * input channels * multiplier
                            * (kernel positions + filters)
    transposed convolution  input positions * kernel positions * input channels * filters
    dense                   output positions * inputs * units

where positions is height * width. Biases, normalization, activations, pooling and additions are not
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
from kpipe.prune.graph.graph_reading import read
from kpipe.prune.graph.model_graph import Graph, Operation

__all__ = [
    "MacTerm",
    "count_macs",
    "count_params",
    "graph_macs",
    "kept_width",
    "mac_terms",
    "prunable_fraction",
]

Width = Callable[[int], int]


@dataclass(frozen=True)
class MacTerm:
    """The multiply-accumulates of one call, as a function of its numbers of channels.

    Args:
        operation: the layer that is called.
        read: number of the input tensor.
        made: number of the output tensor.
        positions: spatial positions of the two for one image, over all rows of the batch that
            hold them.
    """

    operation: Operation
    read: int
    made: int
    positions: tuple[int, int]

    def macs(self, width: Width) -> int:
        """Multiply-accumulates if each tensor has `width(tensor)` channels."""
        rule = rule_of(self.operation)
        assert rule is not None and rule.macs is not None
        return rule.macs(self.operation, *self.positions, width(self.read), width(self.made))


def mac_terms(graph: Graph) -> list[MacTerm]:
    """Return one term for every call in a graph that costs multiply-accumulates.

    Raises:
        PruneError: the image size is not fixed.
    """
    terms, rows = [], _rows(graph)
    for operation in graph.operations:
        rule = rule_of(operation)
        for call in operation.calls if rule is not None and rule.macs is not None else ():
            read, made = call.inputs[0], call.outputs[0]
            before, after = (rows[t] * positions(graph.shapes[t]) for t in (read, made))
            terms.append(MacTerm(operation, read, made, (before, after)))
    return terms


def _rows(graph: Graph) -> dict[int, int]:
    """Tensor number -> batch rows per image: a raw reshape may move positions to the batch axis."""
    rows: dict[int, int] = {}
    for place, use in graph.order:
        operation = graph.operations[place]
        call = operation.calls[use]
        read = max((rows[tensor] for tensor in call.inputs), default=1)
        for tensor in call.outputs:
            rows[tensor] = read
            if operation.kind == "ops.Reshape":
                before, after = (
                    math.prod(int(size or 0) for size in graph.shapes[t][1:])  # 0: unknown
                    for t in (call.inputs[0], tensor)
                )
                rows[tensor] = read * before // after if before and after else read
    return rows


def count_macs(model: keras.Model) -> int:
    """Return the multiply-accumulates of a model for one image; see the module's table.

    Args:
        model: a built Functional or Sequential model of fixed image size.

    Warns:
        UserWarning: layers without a rule that hold weight matrices; they count as 0.

    Example:
        >>> import keras
        >>> from kpipe.prune import count_macs
        >>> conv = keras.layers.Conv2D(4, 3, padding="same")
        >>> count_macs(keras.Sequential([keras.Input((8, 8, 3)), conv]))  # 8 * 8 * 9 * 3 * 4
        6912
    """
    return graph_macs(read(model))


def graph_macs(graph: Graph) -> int:
    """Return the multiply-accumulates of a model that is already read, see `count_macs`."""
    uncounted = [
        f"{operation.name!r} ({operation.kind})"
        for operation in graph.operations
        if rule_of(operation) is None and any(len(s) > 1 for s in operation.weights.values())
    ]
    if uncounted:
        warnings.warn(
            f"no rule counts the multiply-accumulates of {', '.join(uncounted)}: counted as 0",
            stacklevel=3,
        )
    return sum(term.macs(graph.channels) for term in mac_terms(graph))


def count_params(model: keras.Model) -> int:
    """Return the number of parameters of a model, trainable or not.

    Example:
        >>> import keras
        >>> from kpipe.prune import count_params
        >>> count_params(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]))
        8
    """
    return int(sum(math.prod(weight.shape) for weight in model.weights))


def prunable_fraction(model: keras.Model) -> float:
    """Return the fraction of a model's multiply-accumulates that can be removed, in [0, 1].

    This is the work of making the removable channels and of reading them. The rest lies between
    channels that are protected on both sides.

    Example:
        >>> import keras
        >>> from kpipe.prune import prunable_fraction
        >>> norm = keras.layers.LayerNormalization()
        >>> layers = [keras.layers.Dense(4), norm, keras.layers.Dense(2)]
        >>> prunable_fraction(keras.Sequential([keras.Input((3,)), *layers]))
        0.0
        >>> layers.remove(norm)
        >>> prunable_fraction(keras.Sequential([keras.Input((3,)), *layers]))
        1.0
    """
    dependencies = build_dependencies(model)
    terms = mac_terms(dependencies.graph)
    total = sum(term.macs(dependencies.graph.channels) for term in terms)
    fixed = sum(term.macs(kept_width(dependencies, ~dependencies.locked)) for term in terms)
    return 1 - fixed / total if total else 0.0


def kept_width(dependencies: DependencyGraph, removed: np.ndarray) -> Width:
    """Return tensor number -> channels left without the units in the mask `removed`, (units,)."""
    return lambda tensor: int(np.count_nonzero(~removed[dependencies.units[tensor]]))
