"""Multiply-accumulates of layers whose channels stay: attention, products, wrappers.

    Attention             queries * keys * (features of a key + features of a value), for each head
    MultiHeadAttention    the same, and four dense layers
    EinsumDense           output size * summed axes of the kernel
    RNN                   steps * the matrices of Keras' cells
    Dot, Matmul, Einsum   output size * summed axes

Shapes are (batch, ...); the batch counts as one image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kpipe.prune.graph.model_graph import Operation, Tensor, kind_of

__all__ = ["COSTS", "UNCOUNTED_OPERATIONS"]

Shape = tuple[int | None, ...]
Cost = Callable[[Operation, Sequence[Shape], Shape], int | None]  # None: not known

# Raw operations that multiply matrices, and have no entry in the table.
_UNCOUNTED = """
    Conv ConvTranspose Correlate DepthwiseConv Dot Inner Outer SeparableConv Tensordot Vdot
"""
UNCOUNTED_OPERATIONS = frozenset(f"ops.{name}" for name in _UNCOUNTED.split())
_CELLS = ("layers.GRUCell", "layers.LSTMCell", "layers.SimpleRNNCell")


def _size(shape: Sequence[Any]) -> int:
    return math.prod(int(length or 1) for length in shape)


def _attention(operation: Operation, given: Sequence[Shape], made: Shape) -> int | None:
    query, value, *rest = (shape for shape in given if len(shape) > 2)  # masks have two axes
    key = rest[0] if rest else value
    return _size(query[1:-1]) * _size(value[1:-1]) * (int(key[-1] or 0) + int(value[-1] or 0))


def _attention_by_head(operation: Operation, given: Sequence[Shape], made: Shape) -> int | None:
    (_, *query), (_, keys, _, features), (*_, made_features) = given[:3]
    return _size(query[:-1]) * int(keys or 0) * (int(features or 0) + int(made_features or 0))


def _multi_head(operation: Operation, given: Sequence[Shape], made: Shape) -> int | None:
    query, value = given[0], given[1]
    axes = operation.config.get("attention_axes") or range(1, len(value) - 1)
    positions, keys = _size(query[1:-1]), _size(value[1:-1])
    kernels = [s for name, s in operation.weights.items() if name.partition("#")[0] == "kernel"]
    asked, *read, back = map(math.prod, kernels)
    attended = _size([value[axis] for axis in axes])
    heads, features = kernels[0][-2:]
    scores = positions * attended * heads * (features + kernels[2][-1])
    return positions * (asked + back) + keys * sum(read) + scores


def _einsum_dense(operation: Operation, given: Sequence[Shape], made: Shape) -> int | None:
    left, result = operation.config["equation"].split("->")
    kernel = dict(zip(left.split(",")[1].strip(), operation.weights["kernel"], strict=True))
    summed = [size for label, size in kernel.items() if label not in result]
    return _size(made[1:]) * _size(summed)


def _rnn(operation: Operation, given: Sequence[Shape], made: Shape) -> int | None:
    steps, cell = int(given[0][1] or 0), operation.source.cell
    if any(kind_of(inside) not in _CELLS for inside in getattr(cell, "cells", [cell])):
        return None
    matrices = (s for name, s in operation.weights.items() if len(s) > 1 and "bias" not in name)
    return steps * sum(map(math.prod, matrices))


def _matmul(operation: Operation, given: Sequence[Shape], made: Shape) -> int | None:
    first = operation.calls[0].arguments[0][0]
    shape = given[0] if isinstance(first, Tensor) else np.shape(first)
    return _size(made[1:]) * int(shape[-1] or 0)


def _dot(operation: Operation, given: Sequence[Shape], made: Shape) -> int | None:
    axes = operation.config["axes"]
    axis = axes if isinstance(axes, int) else axes[0]
    return _size(made[1:]) * int(given[0][axis] or 0)


def _einsum(operation: Operation, given: Sequence[Shape], made: Shape) -> int | None:
    left, _, result = operation.config["subscripts"].replace(" ", "").partition("->")
    sizes: dict[str, int] = {}
    if not left.count(","):
        return 0  # the axes of one tensor are moved or summed
    if len(given) != 2 or left.count(",") != 1 or not result:
        return None
    for labels, shape in zip(left.split(","), given, strict=True):
        front, dots, back = labels.partition("...")
        sizes |= dict(zip(front, (int(n or 1) for n in shape), strict=False))
        if dots and back:
            sizes |= dict(zip(back, (int(n or 1) for n in shape[-len(back) :]), strict=True))
    summed = [size for label, size in sizes.items() if label not in result]
    return _size(made[1:]) * _size(summed)


def _nothing(operation: Operation, given: Sequence[Shape], made: Shape) -> int | None:
    return 0  # a table is read, nothing is multiplied


COSTS: dict[str, Cost] = {
    "layers.AdditiveAttention": _attention,
    "layers.Attention": _attention,
    "layers.Dot": _dot,
    "layers.EinsumDense": _einsum_dense,
    "layers.Embedding": _nothing,
    "layers.GroupedQueryAttention": _multi_head,
    "layers.MultiHeadAttention": _multi_head,
    "layers.RNN": _rnn,
    "ops.DotProductAttention": _attention_by_head,
    "ops.Einsum": _einsum,
    "ops.Matmul": _matmul,
}
