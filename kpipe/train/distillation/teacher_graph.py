"""A teacher's graph as it runs in training: for inference only, with no work done twice.

    step := (operation, its arguments, numbers of the tensors that it makes)

    BatchNormalization after a convolution   folded into its kernel and bias, which saves two passes
                                             over the activations:
                                                 kernel' = kernel * s,  bias' = (bias - mean) * s
                                                 + beta,                s = gamma / sqrt(var + eps)
    Dropout                                  left out
    equal operations on the same tensors     one step: members of an ensemble that share a frozen
                                             part compute it once ("value numbering")

Outputs equal the teacher's up to rounding. The teacher itself does not change.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kpipe.errors import TrainingError
from kpipe.keras_copies import copy_layer
from kpipe.keras_graph import KerasCall, KerasGraph, Tensor, read_graph
from kpipe.keras_internals import context_arguments

__all__ = ["TeacherGraph"]

_FOLDABLE = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
# What the configuration of two layers with the same outputs in inference may differ in.
_IGNORED = ("name", "trainable")
_IGNORED_ENDS = ("_initializer", "_regularizer", "_constraint")


class TeacherGraph:
    """The outputs of a teacher in inference, as a function that is fast to run in each step.

    Args:
        model: a functional or built Sequential model with one input; later changes of its weights
            need not show.

    Attributes:
        steps: operations that one call runs.

    Raises:
        TrainingError: a model without a graph of layers.
    """

    def __init__(self, model: keras.Model) -> None:
        graph = read_graph(model, TrainingError)
        self._input, self._dtype = graph.inputs[0], model.inputs[0].dtype
        self._steps: list[tuple[Any, Any, tuple[int, ...]]] = []
        same: dict[int, int] = {}  # number of a tensor -> number of the tensor that stands for it
        known: dict[str, tuple[int, ...]] = {}
        folded = _foldable(graph)
        folds = {id(convolution): call for call, convolution in folded}
        skipped = {id(call) for call, _ in folded}
        for call in graph.calls:
            if not call.inputs and isinstance(call.operation, keras.layers.InputLayer):
                continue
            if id(call) in skipped or isinstance(call.operation, keras.layers.Dropout):
                same[call.outputs[0]] = same.get(call.inputs[0], call.inputs[0])
                continue
            operation, arguments = call.operation, _renumbered(call, same)
            if id(call) in folds:
                operation = _fold(operation, folds[id(call)].operation)
            key = _identity(operation, arguments)
            if key is not None and key in known:
                same |= dict(zip(call.outputs, known[key], strict=True))
                continue
            if key is not None:
                known[key] = call.outputs
            self._steps.append((operation, arguments, call.outputs))
        self._outputs = [same.get(number, number) for number in graph.outputs]

    @property
    def steps(self) -> int:
        return len(self._steps)

    def __call__(self, images: Any) -> list[Any]:
        """Return the outputs for images of the shape of the teacher's input."""
        tensors = {self._input: keras.ops.cast(images, self._dtype)}
        for operation, arguments, outputs in self._steps:
            args, kwargs = _replaced(arguments, tensors.__getitem__)
            made = keras.tree.flatten(operation(*args, **kwargs))
            tensors |= dict(zip(outputs, made, strict=True))
        return [tensors[number] for number in self._outputs]


def _replaced(arguments: Any, of: Callable[[int], Any]) -> Any:
    return keras.tree.map_structure(
        lambda x: of(x.number) if isinstance(x, Tensor) else x, arguments
    )


def _renumbered(call: KerasCall, same: dict[int, int]) -> Any:
    """Return the arguments of a call in inference, reading the tensors that stand for others."""
    args, kwargs = _replaced(call.arguments, lambda number: Tensor(same.get(number, number)))
    if "training" in context_arguments(call.operation) and kwargs.get("training") is None:
        kwargs = {**kwargs, "training": False}
    return args, kwargs


def _foldable(graph: KerasGraph) -> list[tuple[KerasCall, KerasCall]]:
    """Return each normalization to fold, with the call of the layer before it."""
    makers = {number: call for call in graph.calls for number in call.outputs}
    readers = Counter(graph.outputs)
    for call in graph.calls:
        readers.update(call.inputs)
    found = []
    for call in graph.calls:
        layer = call.operation
        if type(layer) is not keras.layers.BatchNormalization or layer.renorm:
            continue
        before = makers[call.inputs[0]]
        source = before.operation
        if (
            len(call.inputs) == 1
            and type(source) in _FOLDABLE
            and readers[call.inputs[0]] == 1
            and source.activation is keras.activations.linear
            and getattr(source, "data_format", "channels_last") == "channels_last"
            and layer.axis in (-1, len(call.read[0].shape) - 1)
            and source.compute_dtype == layer.compute_dtype == "float32"
            and call.arguments[1].get("mask") is None
        ):
            found.append((call, before))
    return found


def _fold(source: Any, normalization: Any) -> Any:
    """Return a copy of a layer that returns what the normalization after it returns."""
    mean = np.array(normalization.moving_mean)
    variance = np.array(normalization.moving_variance)
    scale = 1 / np.sqrt(variance + normalization.epsilon)
    if normalization.scale:
        scale = scale * np.array(normalization.gamma)
    bias = (np.array(source.bias) if source.use_bias else 0) - mean
    bias = bias * scale + (np.array(normalization.beta) if normalization.center else 0)
    kernel = np.array(source.kernel)
    depthwise = isinstance(source, keras.layers.DepthwiseConv2D)
    factors = scale.reshape(kernel.shape[-2:]) if depthwise else scale
    copy = copy_layer(source, TrainingError, {**source.get_config(), "use_bias": True})
    channels = kernel.shape[-2] * getattr(source, "groups", 1)
    copy.build((*[None] * (1 if isinstance(source, keras.layers.Dense) else 3), channels))
    copy.set_weights([kernel * factors, bias])
    return copy


def _identity(operation: Any, arguments: Any) -> str | None:
    """Return text that two calls share if they compute the same; None if nothing is known."""
    try:
        config = {
            name: value
            for name, value in operation.get_config().items()
            if name not in _IGNORED and not name.endswith(_IGNORED_ENDS)
        }
    except Exception:  # of a custom layer, or a raw operation without a configuration
        return None
    state = hashlib.sha256()
    for weight in getattr(operation, "weights", ()):
        state.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).tobytes())
    return repr((type(operation), config, arguments, state.hexdigest()))
