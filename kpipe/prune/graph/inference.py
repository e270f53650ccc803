"""Run a graph one operation at a time, so that its parts can be measured and changed in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from kpipe.keras_internals import context_arguments
from kpipe.prune.graph.model_graph import Call, Graph, Operation, Tensor

__all__ = ["StepwiseInference"]


class StepwiseInference:
    """A run of a graph in inference mode; each tensor is freed after its last use.

    Args:
        graph: of a model of one input.
        batches: images, each (batch, height, width, channels); all of them pass an operation
            before the next one runs.
        order: (index of the operation, index of its call), inputs first; that of the graph if None.
    """

    def __init__(
        self,
        graph: Graph,
        batches: Sequence[tf.Tensor],
        order: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        self._graph = graph
        steps = [step for step in order or graph.order if self._call(*step).inputs]
        self._steps, self._next = steps, 0
        self._last = {t: n for n, step in enumerate(steps) for t in self._call(*step).inputs}
        self._tensors: dict[int, list[Any]] = {graph.inputs[0]: list(batches)}

    def _call(self, place: int, use: int) -> Call:
        return self._graph.operations[place].calls[use]

    @property
    def done(self) -> bool:
        """Whether all operations have run."""
        return self._next == len(self._steps)

    @property
    def operation(self) -> Operation:
        """The operation that runs next."""
        return self._graph.operations[self._steps[self._next][0]]

    @property
    def step(self) -> tuple[str, int]:
        """Name of the operation that runs next, and which of its calls."""
        return self.operation.name, self._steps[self._next][1]

    def first_inputs(self) -> list[tf.Tensor]:
        """Return what the next operation reads first, for each batch."""
        return self._tensors[self._call(*self._steps[self._next]).inputs[0]]

    def advance(self, run: Callable[..., Any] | None = None) -> None:
        """Run the next operation.

        Args:
            run: called with the operation and its arguments, in its place; returns its outputs.
        """
        place, use = self._steps[self._next]
        operation, call = self._graph.operations[place], self._call(place, use)
        # In a graph, Keras records training=True for augmentation layers.
        inference = {"training": False} if "training" in context_arguments(operation.source) else {}
        made: dict[int, list[Any]] = {tensor: [] for tensor in call.outputs}
        for batch in range(len(self._tensors[call.inputs[0]])):

            def fill(x: Any, batch: int = batch) -> Any:
                return self._tensors[x.number][batch] if isinstance(x, Tensor) else x

            args, kwargs = keras.tree.map_structure(fill, call.arguments)
            kwargs |= inference
            outputs = (
                operation.source(*args, **kwargs)
                if run is None
                else run(operation, *args, **kwargs)
            )
            for tensor, output in zip(call.outputs, keras.tree.flatten(outputs), strict=True):
                made[tensor].append(output)
        self._tensors |= made
        for tensor in call.inputs:
            if self._last[tensor] == self._next:
                self._tensors.pop(tensor, None)
        self._next += 1
