"""Shift BatchNormalization statistics by what a removal changed, instead of replacing them.

    mean'      = mean + E_new[x] - E_old[x]                        on the channels kept
    variance'  = variance * Var_new[x] / Var_old[x]

E and Var are the moments of a layer's input over the images and positions of a batch, in the old
and the new model, both in inference mode. In the new model, the layers before already have their
shifted statistics. So the statistics keep what they learned from other photos, as in the frozen
layers of a pretrained network. A layer whose input loses nothing keeps its statistics to the bit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kpipe.errors import PruneError
from kpipe.prune.graph.graph_reading import read
from kpipe.prune.graph.inference import StepwiseInference
from kpipe.prune.graph.model_graph import Graph, Operation
from kpipe.prune.images import calibration_batches
from kpipe.prune.surgery.planning import Plan
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = [
    "NORMALIZATION",
    "ReferenceStatistics",
    "channel_moments",
    "has_channel_statistics",
    "refuse_others",
    "shift_statistics",
    "shifted_statistics",
]

NORMALIZATION = "layers.BatchNormalization"
_Pair = tuple[tf.Tensor, tf.Tensor]  # mean and variance, each (channels,)
_Moments = list[_Pair]  # one per call


@names_wrong_kinds
def shift_statistics(
    model: keras.Model, smaller: keras.Model, plan: Plan, images: Iterable[Any]
) -> None:
    """Shift the moving mean and variance of every BatchNormalization layer in `smaller`.

    Args:
        model: the model before the removal; not changed.
        smaller: the result of `remove_filters(model, plan)`; changed in place, frozen layers too.
        plan: what was removed.
        images: batches `(batch, height, width, channels)`, as the model takes them, or tuples
            that begin with one; a few hundred images are enough.

    Raises:
        PruneError: no images, a model of several inputs, or models that do not belong together.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from kpipe.prune import plan, remove_filters, shift_statistics
        >>> layers = [keras.layers.Dense(4, name="first"), keras.layers.Dense(2)]
        >>> batch_norm = keras.layers.BatchNormalization(name="bn")
        >>> model = keras.Sequential([keras.Input((3,)), *layers, batch_norm])
        >>> removal = plan(model, {"first": [0]})
        >>> smaller = remove_filters(model, removal)
        >>> shift_statistics(model, smaller, removal, [np.ones((8, 3), "float32")])
        >>> bool(np.any(smaller.get_layer("bn").moving_mean))
        True
    """
    graph = read(model)
    refuse_others(graph, read(smaller), plan)
    ReferenceStatistics(model, graph, images).shift(smaller, plan)


def refuse_others(graph: Graph, smaller: Graph, plan: Plan) -> None:
    """Raise a PruneError unless the second graph can be the first without what a plan removes."""
    norms, others = (
        {o.name: o.source.moving_mean.shape[0] for o in g.operations if o.kind == NORMALIZATION}
        for g in (graph, smaller)
    )
    kept = {name: len(plan.kept.get(name, range(size))) for name, size in norms.items()}
    inputs = [[g.shapes[tensor] for tensor in g.inputs] for g in (graph, smaller)]
    if wrong := [f"{name!r}" for name, size in others.items() if kept.get(name) != size]:
        received = f"BatchNormalization layers that differ: {', '.join(wrong)}"
    elif inputs[0] != inputs[1]:
        received = f"inputs {inputs[1]} in place of {inputs[0]}"
    else:
        return
    raise PruneError(
        "the smaller model does not belong to the model and the plan",
        expected="smaller = remove_filters(model, plan)",
        received=received,
    )


class ReferenceStatistics:
    """The input moments of a model's normalizations, measured once for several removals.

    Args:
        model: the model before any removal.
        graph: the same, as plain data.
        images: see `shift_statistics`; kept in memory.
    """

    def __init__(self, model: keras.Model, graph: Graph, images: Iterable[Any]) -> None:
        batches = calibration_batches(model, images)
        self._batches = [(batch, _moments(graph, batch)) for batch in batches]

    def shift(self, smaller: keras.Model, plan: Plan, images: int | None = None) -> None:
        """Shift the statistics of the result of `remove_filters(model, plan)`.

        Args:
            smaller: changed in place; residual blocks may be missing.
            plan: the plan for the model, or for the model without these blocks.
            images: use the first batches with this many images; None uses all.
        """
        graph = read(smaller)
        sizes = [len(batch) for batch, _ in self._batches]
        if images is not None:
            sizes = sizes[: int(np.searchsorted(np.cumsum(sizes), images)) + 1]
        used = self._batches[: len(sizes)]
        found = [_shifted(graph, batch, moments, plan) for batch, moments in used]
        for operation in graph.operations:
            if operation.name in found[0]:
                mean, variance = np.average([f[operation.name] for f in found], 0, sizes)
                operation.source.moving_mean.assign(mean)
                operation.source.moving_variance.assign(np.maximum(variance, 0))


def _moments(graph: Graph, batch: tf.Tensor) -> dict[str, _Moments]:
    """Name of a BatchNormalization -> moments of its input, for each call."""
    found: dict[str, _Moments] = defaultdict(list)

    def call(operation: Operation, *args: Any, **kwargs: Any) -> Any:
        if has_channel_statistics(operation, args[0]):
            found[operation.name].append(channel_moments(args[0]))
        return operation.source(*args, **kwargs)

    _run(graph, batch, call)
    return found


def _shifted(
    graph: Graph, batch: tf.Tensor, reference: dict[str, _Moments], plan: Plan
) -> dict[str, np.ndarray]:
    """Name of a BatchNormalization -> shifted mean and variance of one batch, (2, channels)."""
    found: dict[str, _Moments] = defaultdict(list)

    def call(operation: Operation, *args: Any, **kwargs: Any) -> Any:
        if not has_channel_statistics(operation, args[0]):
            return operation.source(*args, **kwargs)
        layer, x = operation.source, args[0]
        old = reference[operation.name][len(found[operation.name])]
        if operation.name in plan.kept:
            old = tuple(tf.gather(values, plan.kept[operation.name]) for values in old)
        statistics = layer.moving_mean, layer.moving_variance
        mean, variance = shifted_statistics(*statistics, layer.epsilon, old, channel_moments(x))
        found[operation.name].append((mean, variance))
        return tf.nn.batch_normalization(x, mean, variance, layer.beta, layer.gamma, layer.epsilon)

    _run(graph, batch, call)
    return {name: np.mean(calls, axis=0) for name, calls in found.items()}


def shifted_statistics(
    mean: Any, variance: Any, epsilon: float, old: _Pair, new: _Pair
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the shifted mean and variance of a normalization, each (channels,).

    Args:
        mean: the moving mean, (channels,).
        variance: the moving variance, (channels,).
        epsilon: of the layer.
        old: mean and variance of its input before the removal.
        new: those of its input now.
    """
    # Epsilon, as in the layer's own division: a dead channel has no ratio without it.
    ratio = (new[1] + epsilon) / (old[1] + epsilon)
    return mean + (new[0] - old[0]), (variance + epsilon) * ratio - epsilon


def has_channel_statistics(operation: Operation, x: Any) -> bool:
    """Whether an operation on `x` is a normalization per channel; others keep their statistics."""
    return operation.kind == NORMALIZATION and operation.config["axis"] in (-1, x.shape.rank - 1)


def channel_moments(x: tf.Tensor) -> _Pair:
    """Return the mean and the variance of each channel over images and positions."""
    wide = x if x.dtype == tf.float64 else tf.cast(x, "float32")
    return tf.nn.moments(wide, list(range(x.shape.rank - 1)))


def _run(graph: Graph, batch: tf.Tensor, call: Callable[..., Any]) -> None:
    inference = StepwiseInference(graph, [batch])
    while not inference.done:
        inference.advance(call)
