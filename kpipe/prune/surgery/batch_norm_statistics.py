"""BatchNormalization statistics after a removal: shifted by what it changed, not replaced.

    mean'      = mean + E_new[x] - E_old[x]                        on the channels that are kept
    variance'  = variance * Var_new[x] / Var_old[x]

E and Var are of the input of a layer, over the images and positions of a batch, in the old and in
the new model, each in inference. In the new model the layers before have their shifted statistics
already. What the statistics knew of photos that are not at hand, as frozen layers of a pretrained
network do, so stays in them. A layer whose input loses nothing keeps its statistics to the bit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kpipe.errors import PruneError
from kpipe.keras_internals import context_arguments
from kpipe.prune.graph.model_graph import Graph, Operation, Tensor
from kpipe.prune.graph.tracing import read
from kpipe.prune.ranking.activity import image_batches, refuse_several_inputs
from kpipe.prune.surgery.planning import Plan

__all__ = ["Reference", "shift_statistics"]

_KIND = "layers.BatchNormalization"
_Moments = list[tuple[tf.Tensor, tf.Tensor]]  # mean and variance, each (channels,), one per call


def shift_statistics(
    model: keras.Model, smaller: keras.Model, plan: Plan, images: Iterable[Any]
) -> None:
    """Shifts the statistics of every BatchNormalization in `smaller`, trainable or not.

    Args:
        model: before the removal; left as it is.
        smaller: what `remove_filters(model, plan)` gave; changed in place.
        plan: what was removed.
        images: batches `(batch, height, width, channels)`, as the model takes them, or tuples
            that begin with one; a few hundred images are enough.

    Raises:
        PruneError: no images, or a model of several inputs.
    """
    Reference(model, images).shift(smaller, plan)


class Reference:
    """What the normalizations of a model read, measured once for several removals.

    Args:
        model: before any removal.
        images: see `shift_statistics`; kept in memory.
    """

    def __init__(self, model: keras.Model, images: Iterable[Any]) -> None:
        graph = read(model)
        refuse_several_inputs(
            model,
            f"the statistics of {model.name!r} cannot be shifted",
            "leave calibration out: in training, statistics follow the batches",
        )
        self._batches = [(batch, _moments(graph, batch)) for batch in image_batches(images, model)]
        if not self._batches:
            raise PruneError(
                "there are no images to shift the statistics by",
                expected="batches of images, (batch, height, width, channels)",
                fix="give a list of batches, or a finite tf.data.Dataset",
            )

    def shift(self, smaller: keras.Model, plan: Plan, images: int | None = None) -> None:
        """Shifts the statistics of what `remove_filters(model, plan)` gave.

        Args:
            smaller: changed in place; residual blocks may be missing.
            plan: of the model, or of the model without these blocks.
            images: how many are enough, the first batches; None for all.
        """
        graph = read(smaller)
        sizes = [len(batch) for batch, _ in self._batches]
        if images is not None:
            sizes = sizes[: int(np.searchsorted(np.cumsum(sizes), images)) + 1]
        looked_at = self._batches[: len(sizes)]
        found = [_shifted(graph, batch, moments, plan) for batch, moments in looked_at]
        for operation in graph.operations:
            if operation.name in found[0]:
                mean, variance = np.average([f[operation.name] for f in found], 0, sizes)
                operation.source.moving_mean.assign(mean)
                operation.source.moving_variance.assign(np.maximum(variance, 0))


def _moments(graph: Graph, batch: tf.Tensor) -> dict[str, _Moments]:
    """Name of a BatchNormalization -> moments of what it reads, for each call."""
    found: dict[str, _Moments] = defaultdict(list)

    def call(operation: Operation, *args: Any, **kwargs: Any) -> Any:
        if _normalizes(operation, args):
            found[operation.name].append(_of_channels(args[0]))
        return operation.source(*args, **kwargs)

    _run(graph, batch, call)
    return found


def _shifted(
    graph: Graph, batch: tf.Tensor, reference: dict[str, _Moments], plan: Plan
) -> dict[str, np.ndarray]:
    """Name of a BatchNormalization -> mean and variance, shifted by one batch, (2, channels)."""
    found: dict[str, _Moments] = defaultdict(list)

    def call(operation: Operation, *args: Any, **kwargs: Any) -> Any:
        if not _normalizes(operation, args):
            return operation.source(*args, **kwargs)
        layer, x = operation.source, args[0]
        old = reference[operation.name][len(found[operation.name])]
        if operation.name in plan.kept:
            old = tuple(tf.gather(values, plan.kept[operation.name]) for values in old)
        new = _of_channels(x)
        mean = layer.moving_mean + (new[0] - old[0])
        # With epsilon, as the layer divides: a channel that was dead has no ratio.
        ratio = (new[1] + layer.epsilon) / (old[1] + layer.epsilon)
        variance = (layer.moving_variance + layer.epsilon) * ratio - layer.epsilon
        found[operation.name].append((mean, variance))
        return tf.nn.batch_normalization(x, mean, variance, layer.beta, layer.gamma, layer.epsilon)

    _run(graph, batch, call)
    return {name: np.mean(calls, axis=0) for name, calls in found.items()}


def _normalizes(operation: Operation, args: tuple[Any, ...]) -> bool:
    """Whether it has statistics per channel; one along another axis loses none and keeps them."""
    return operation.kind == _KIND and operation.config["axis"] in (-1, args[0].shape.rank - 1)


def _of_channels(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    wide = x if x.dtype == tf.float64 else tf.cast(x, "float32")
    return tf.nn.moments(wide, list(range(x.shape.rank - 1)))


def _run(graph: Graph, batch: tf.Tensor, call: Callable[..., Any]) -> None:
    """Runs a graph in inference, operation by operation; a tensor goes after its last reader."""
    tensors: dict[int, Any] = {graph.inputs[0]: batch}
    steps = [graph.operations[place].calls[use] for place, use in graph.order]
    last = {tensor: number for number, step in enumerate(steps) for tensor in step.inputs}

    def fill(x: Any) -> Any:
        return tensors[x.number] if isinstance(x, Tensor) else x

    for number, ((place, _), step) in enumerate(zip(graph.order, steps, strict=True)):
        if not step.inputs:
            continue
        args, kwargs = keras.tree.map_structure(fill, step.arguments)
        # Layers that augment note training=True when they are called in a graph.
        if "training" in context_arguments(graph.operations[place].source):
            kwargs["training"] = False
        made = keras.tree.flatten(call(graph.operations[place], *args, **kwargs))
        tensors |= dict(zip(step.outputs, made, strict=True))
        for tensor in step.inputs:
            if last[tensor] == number:
                tensors.pop(tensor, None)
