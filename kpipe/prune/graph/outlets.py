"""The outlet of a layer: the operation whose output shows what each filter contributes.

    layer -> [BatchNormalization] -> [activation] -> readers
    outlet := the last of these, as long as each is read by the next one only

A filter's contribution shows after its normalization and activation, not before.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from kpipe.prune.graph.model_graph import Graph, Operation

__all__ = ["Outlet", "find_outlet", "readers"]

_NORMALIZATION = "layers.BatchNormalization"
_ACTIVE = """
    layers.Activation layers.ELU layers.LeakyReLU layers.PReLU layers.ReLU
    ops.Celu ops.Elu ops.Gelu ops.HardSigmoid ops.HardSilu ops.LeakyRelu ops.Relu ops.Relu6
    ops.Selu ops.Sigmoid ops.Silu ops.Softplus ops.Tanh
"""
_ACTIVATIONS = frozenset(_ACTIVE.split())


@dataclass(frozen=True)
class Outlet:
    """The last operation of a layer's normalization and activation.

    Args:
        operation: its name.
        normalization: name of the BatchNormalization on the way, or None.
    """

    operation: str
    normalization: str | None


def readers(graph: Graph) -> dict[int, list[Operation]]:
    """Map the number of each tensor to the operations that read it, once per call."""
    found: dict[int, list[Operation]] = defaultdict(list)
    for operation in graph.operations:
        for call in operation.calls:
            for tensor in dict.fromkeys(call.inputs):
                found[tensor].append(operation)
    return found


def find_outlet(graph: Graph, layer: Operation, read: dict[int, list[Operation]]) -> Outlet:
    """Return the outlet of a layer, following its first call.

    Args:
        graph: the graph of the layer.
        layer: one with filters.
        read: `readers(graph)`.
    """
    last, normalization = layer, None
    active = layer.config.get("activation") not in (None, "linear")
    while not active:
        following = read[last.calls[0].outputs[0]]
        if len(following) != 1 or len(following[0].calls) != len(layer.calls):
            break
        (reader,) = following
        if reader.kind == _NORMALIZATION and normalization is None:
            normalization = reader.name
        elif reader.kind in _ACTIVATIONS:
            active = True
        else:
            break
        last = reader
    return Outlet(last.name, normalization)
