"""Multiply-accumulates and parameters.

    layer                   multiply-accumulates for one image
    convolution             output positions * kernel positions * input channels / groups * filters
    depthwise convolution   output positions * kernel positions * output channels
    separable convolution   output positions * input channels * multiplier
                            * (kernel positions + filters)
    transposed convolution  input positions * kernel positions * input channels * filters
    dense                   output positions * inputs * units
    recurrent layer         steps * gates * units * (inputs + units), in each direction
    attention, products     see `kpipe.prune.dependencies.costs`
    wrapper                 the layer inside, at each step of a TimeDistributed

where positions is height * width. Biases, normalization, activations, pooling and additions are not
counted: they are a few percent, and a converter folds many of them away.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kpipe.keras_graph import find_graph
from kpipe.prune.dependencies.costs import COSTS, UNCOUNTED_OPERATIONS
from kpipe.prune.dependencies.dependency_graph import DependencyGraph, build_dependencies
from kpipe.prune.dependencies.registry import rule_of
from kpipe.prune.dependencies.rules import positions
from kpipe.prune.graph.graph_reading import read, read_operation
from kpipe.prune.graph.model_graph import Call, Graph, Operation, Tensor
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = [
    "MacTerm",
    "count_macs",
    "count_params",
    "graph_macs",
    "kept_width",
    "mac_terms",
    "prunable_fraction",
    "warn_uncounted",
]

Shape = tuple[int | None, ...]
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
        fixed: multiply-accumulates of an operation whose channels stay; None for a rule's.
    """

    operation: Operation
    read: int
    made: int
    positions: tuple[int, int]
    fixed: int | None = None

    def macs(self, width: Width) -> int:
        """Multiply-accumulates if each tensor has `width(tensor)` channels."""
        if self.fixed is not None:
            return self.fixed
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
        for call in operation.calls:
            if not call.inputs or (rule is not None and rule.macs is None):
                continue
            read, made = call.inputs[0], call.outputs[0]
            before, after = (rows[t] * positions(graph.shapes[t]) for t in (read, made))
            fixed = None
            if rule is None:
                fixed = rows[made] * (_cost(operation, call.input_shapes, graph.shapes[made]) or 0)
            terms.append(MacTerm(operation, read, made, (before, after), fixed))
    return terms


def _cost(operation: Operation, given: Sequence[Shape], made: Shape) -> int | None:
    """The multiply-accumulates of one call on one image; None if they are not known."""
    rule, cost = rule_of(operation), COSTS.get(operation.kind)
    if rule is not None:
        if rule.macs is None:  # a registered rule of a layer that makes channels should have it
            return None if rule.filter_axes else 0
        sizes = positions(given[0]), positions(made), given[0][-1] or 0, made[-1] or 0
        return rule.macs(operation, *sizes)
    if cost is not None:
        return cost(operation, given, made)
    if operation.kind in ("layers.TimeDistributed", "layers.SpectralNormalization"):
        inner, steps = operation.source.layer, 1
        if operation.kind == "layers.TimeDistributed":
            steps = given[0][1] or 0
            given, made = [(shape[0], *shape[2:]) for shape in given], (made[0], *made[2:])
        once = _inside_cost(inner, given, made)
        return None if once is None else steps * once
    matrices = any(len(shape) > 1 for shape in operation.weights.values())
    return None if matrices or operation.kind in UNCOUNTED_OPERATIONS else 0


def _inside_cost(inner: Any, given: Sequence[Shape], made: Shape) -> int | None:
    if not isinstance(inner, keras.Model):
        call = Call((0,), (1,), ((Tensor(0),), {}), tuple(given))
        return _cost(read_operation(inner, [call]), given, made)
    if find_graph(inner) is None:
        return None
    graph = read(inner)
    if [graph.shapes[tensor][1:] for tensor in graph.inputs] != [shape[1:] for shape in given]:
        return None  # it was built on other sizes
    return None if _uncounted(graph) else sum(t.macs(graph.channels) for t in mac_terms(graph))


def _uncounted(graph: Graph) -> list[str]:
    """The operations of which the multiply-accumulates are not known."""
    return [
        f"{operation.name!r} ({operation.kind})"
        for operation in graph.operations
        for call in operation.calls[:1]
        if call.inputs
        if _cost(operation, call.input_shapes, graph.shapes[call.outputs[0]]) is None
    ]


def warn_uncounted(graph: Graph) -> None:
    """Name the operations that figures of multiply-accumulates leave out."""
    if any(None in shape[1:] for shape in graph.shapes):
        return  # nothing is counted
    uncounted = _uncounted(graph)
    if uncounted:
        warnings.warn(
            f"no rule counts the multiply-accumulates of {', '.join(uncounted)}: counted as 0",
            stacklevel=3,
        )


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


@names_wrong_kinds
def count_macs(model: keras.Model) -> int:
    """Return the multiply-accumulates of a model for one image; see the module's table.

    Args:
        model: a built Functional or Sequential model of fixed image size.

    Warns:
        UserWarning: layers that multiply in a way that no rule counts; they count as 0.

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
    warn_uncounted(graph)
    return sum(term.macs(graph.channels) for term in mac_terms(graph))


@names_wrong_kinds
def count_params(model: keras.Model) -> int:
    """Return the number of parameters of a model, trainable or not.

    Example:
        >>> import keras
        >>> from kpipe.prune import count_params
        >>> count_params(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]))
        8
    """
    return int(sum(math.prod(weight.shape) for weight in model.weights))


@names_wrong_kinds
def prunable_fraction(model: keras.Model) -> float:
    """Return the fraction of a model's multiply-accumulates that can be removed, in [0, 1].

    This is the work of making the removable channels and of reading them. The rest lies between
    channels that are protected on both sides.

    Warns:
        UserWarning: as `count_macs`.

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
    warn_uncounted(dependencies.graph)
    terms = mac_terms(dependencies.graph)
    total = sum(term.macs(dependencies.graph.channels) for term in terms)
    fixed = sum(term.macs(kept_width(dependencies, ~dependencies.locked)) for term in terms)
    return 1 - fixed / total if total else 0.0


def kept_width(dependencies: DependencyGraph, removed: np.ndarray) -> Width:
    """Return tensor number -> channels left without the units in the mask `removed`, (units,)."""

    def width(tensor: int) -> int:
        if dependencies.axes[tensor] != -1:
            return dependencies.graph.channels(tensor)
        return int(np.count_nonzero(~removed[dependencies.units[tensor]]))

    return width
