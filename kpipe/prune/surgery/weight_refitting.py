"""Refit the layers that read removed filters, so that their outputs stay close to what they were.

    V = argmin |Y - X V|^2 + ridge * |V - V0|^2

    X       what a layer reads in the smaller model, a row for each position of an output
    Y       what it made of its input in the model before, on the output channels that stay
    V, V0   its weights, and those that the removal left it

Layers are refitted from the input to the output. So each makes up for the removal of its own inputs
and for what the layers before could not restore (He et al. 2017, arXiv 1707.06168, sections 3.1 and
3.2, which fit without the ridge). The ridge is chosen among five on every second batch, by the
error of the weights that the other batches give. A layer that none of them helps keeps its weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kpipe.errors import PruneError
from kpipe.prune.graph.graph_reading import read
from kpipe.prune.graph.inference import StepwiseInference
from kpipe.prune.graph.model_graph import Graph, Operation
from kpipe.prune.images import calibration_batches
from kpipe.prune.surgery.batch_norm_statistics import (
    NORMALIZATION,
    ReferenceStatistics,
    channel_moments,
    has_channel_statistics,
    refuse_others,
    shifted_statistics,
)
from kpipe.prune.surgery.planning import Plan
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["refit", "refit_weights"]

_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # relative to the mean square of an input
_MOST_INPUTS = 4608  # of a layer: 512 channels by 3 x 3; the fit takes their cube
_MEMORY = 2**31  # bytes of all tensors of both models that live at once
_FEWEST_IMAGES = 32
_BATCH = 64  # fewer images are slower
_UNCHANGED = 1e-10  # of an output's energy


@names_wrong_kinds
def refit_weights(
    model: keras.Model, smaller: keras.Model, plan: Plan, images: Iterable[Any]
) -> None:
    """Fit the weights that read removed filters to the outputs that the model had, in place.

    Each Conv2D and Dense layer of `smaller` whose input has changed gets the kernel and the bias
    with the least squared error in its outputs on the images. BatchNormalization statistics are
    shifted as by `shift_statistics`. No labels and no gradients are needed, and seconds to minutes
    suffice. Layers that are called several times, grouped and separable convolutions, convolutions
    of other dimensions, layers with a kernel constraint and those of more than 4,608 inputs to an
    output keep their weights; so does every layer whose input is as it was.

    Args:
        model: the model before the removal; not changed.
        smaller: the result of `remove_filters(model, plan)`; changed in place, frozen layers too.
        plan: what was removed.
        images: batches `(batch, height, width, channels)`, as the model takes them, or tuples
            that begin with one; a few hundred images are enough. The first of them are used, as
            many as two gigabytes of activations allow and at least 32.

    Raises:
        PruneError: no images, a model of several inputs, or models that do not belong together.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from kpipe.prune import plan, refit_weights, remove_filters
        >>> keras.utils.set_random_seed(0)
        >>> images = np.random.default_rng(0).normal(size=(64, 3))
        >>> layers = [keras.layers.Dense(8, name="hidden"), keras.layers.Dense(2, name="last")]
        >>> model = keras.Sequential([keras.Input((3,)), *layers])
        >>> removal = plan(model, {"hidden": [1, 2, 3]})  # five filters know the three inputs
        >>> smaller = remove_filters(model, removal)
        >>> errors = [np.abs(smaller(images) - model(images)).max()]
        >>> refit_weights(model, smaller, removal, [images])
        >>> errors.append(np.abs(smaller(images) - model(images)).max())
        >>> bool(errors[1] < errors[0] / 100)
        True
    """
    graph = read(model)
    _refuse_others(graph, read(smaller), plan)
    refit(model, graph, smaller, plan, images)


def _refuse_others(graph: Graph, smaller: Graph, plan: Plan) -> None:
    refuse_others(graph, smaller, plan)
    known = {operation.name: operation for operation in graph.operations}
    strangers = [o.name for o in smaller.operations if o.name not in known]
    strangers += [
        operation.name
        for operation in smaller.operations
        if operation.name in known and _can_be_refitted(operation)
        if _outputs(operation) != _outputs_left(known[operation.name], plan)
    ]
    if strangers:
        raise PruneError(
            "the smaller model does not belong to the model and the plan",
            expected="smaller = remove_filters(model, plan)",
            received=f"layers that differ: {', '.join(map(repr, strangers))}",
        )


def _outputs(operation: Operation) -> int:
    return int(operation.source.kernel.shape[-1])


def _outputs_left(operation: Operation, plan: Plan) -> int:
    kept = plan.kept.get(operation.name)
    if kept is not None:
        return len(kept)
    return _outputs(operation) if "kernel" in operation.weights else -1


def refit(
    model: keras.Model, graph: Graph, smaller: keras.Model, plan: Plan, images: Iterable[Any]
) -> None:
    """Do what `refit_weights` does for a model that is already read.

    Args:
        model: the model before the removal.
        graph: the same, as plain data.
        smaller: changed in place; residual blocks may be missing.
        plan: the plan for the model, or for the model without these blocks.
        images: see `refit_weights`.
    """
    batches = _batches(model, graph, images)
    if any(
        operation.kind == NORMALIZATION and len(operation.calls) > 1
        for operation in graph.operations
    ):
        ReferenceStatistics(model, graph, batches).shift(smaller, plan)
    small = read(smaller)
    places, steps = {step: n for n, step in enumerate(_steps(graph))}, _steps(small)
    # Without a block, Keras may order the rest in another way.
    order = [small.order[n] for n in sorted(range(len(steps)), key=lambda n: places[steps[n]])]
    before, after = StepwiseInference(graph, batches), StepwiseInference(small, batches, order)
    while not after.done:
        while before.step != after.step:
            before.advance()
        operation, whole = after.operation, before.operation
        kept = plan.kept.get(operation.name)
        if len(operation.calls) == 1:
            if has_channel_statistics(operation, after.first_inputs()[0]):
                _shift(operation, whole, kept, before, after)
            elif _can_be_refitted(operation):
                _refit(operation, whole, kept, before, after)
        after.advance()


def _batches(model: keras.Model, graph: Graph, images: Iterable[Any]) -> list[tf.Tensor]:
    """As many of the images as fit into memory, in two batches at least."""
    most = max(_FEWEST_IMAGES, _MEMORY // (2 * _bytes_alive(graph)))
    used = tf.concat(calibration_batches(model, images, most), 0)[:most]
    size = min(_BATCH, math.ceil(len(used) / 2))
    return [used[start : start + size] for start in range(0, len(used), size)]


def _steps(graph: Graph) -> list[tuple[str, int]]:
    return [(graph.operations[place].name, use) for place, use in graph.order]


def _bytes_alive(graph: Graph) -> int:
    """The largest number of bytes that the tensors of one image take at once, in float32."""
    sizes = [math.prod(size or 1 for size in shape[1:]) for shape in graph.shapes]
    calls = [graph.operations[place].calls[use] for place, use in graph.order]
    last = {tensor: number for number, call in enumerate(calls) for tensor in call.inputs}
    alive = set(graph.inputs)
    largest = 1
    for number, call in enumerate(calls):
        alive |= set(call.outputs)
        largest = max(largest, sum(sizes[tensor] for tensor in alive))
        alive -= {tensor for tensor in call.inputs if last[tensor] == number}
    return 4 * largest


def _shift(
    operation: Operation,
    whole: Operation,
    kept: np.ndarray | None,
    before: StepwiseInference,
    after: StepwiseInference,
) -> None:
    """Shift the statistics of a normalization from those it had, for inputs that are refitted."""
    layer, was = operation.source, whole.source
    statistics = [was.moving_mean, was.moving_variance]
    if kept is not None:
        statistics = [tf.gather(values, kept) for values in statistics]
    mean, variance = statistics
    found = []
    for old, new in zip(before.first_inputs(), after.first_inputs(), strict=True):
        old = old if kept is None else tf.gather(old, kept, axis=-1)
        moments = channel_moments(old), channel_moments(new)
        found.append(shifted_statistics(mean, variance, layer.epsilon, *moments))
    sizes = [len(batch) for batch in after.first_inputs()]
    mean, variance = np.average(found, 0, sizes)
    layer.moving_mean.assign(mean)
    layer.moving_variance.assign(np.maximum(variance, 0))


def _can_be_refitted(operation: Operation) -> bool:
    config, layer = operation.config, operation.source
    plain = {"kernel", "bias"} >= set(operation.weights) and not config.get("kernel_constraint")
    if operation.kind == "layers.Conv2D":
        last = config.get("data_format") in (None, "channels_last")
        plain = plain and last and (config.get("groups") or 1) == 1
    elif operation.kind != "layers.Dense":
        return False
    return plain and _inputs(layer) <= _MOST_INPUTS


def _inputs(layer: Any) -> int:
    """How many numbers each output of a layer is computed from."""
    return int(np.prod(layer.kernel.shape[:-1]))


@dataclass
class _Moments:
    """Sums over the rows of half of the batches.

    Attributes:
        inputs: X'X, (inputs, inputs).
        errors: X'(Y - X V0), (inputs, outputs).
        rows: their number.
    """

    inputs: np.ndarray
    errors: np.ndarray
    rows: int = 0

    def add(self, x: tf.Tensor, error: tf.Tensor) -> None:
        self.inputs += tf.matmul(x, x, transpose_a=True).numpy()
        self.errors += tf.matmul(x, error, transpose_a=True).numpy()
        self.rows += len(x)

    def change(self, ridge: float, biased: bool) -> np.ndarray:
        """V - V0, (inputs, outputs); a bias, whose input is the last one, has no ridge."""
        penalty = np.full(len(self.inputs), ridge * np.trace(self.inputs) / len(self.inputs))
        if biased:
            penalty[-1] = 0.0
        # An input that is always 0 has no equation of its own.
        penalty += np.finfo("float32").eps * max(np.trace(self.inputs), 1.0)
        return np.linalg.solve(self.inputs + np.diag(penalty), self.errors)

    def gain(self, change: np.ndarray) -> float:
        """By how much a change of the weights lowers the squared error."""
        return float(2 * np.sum(change * self.errors) - np.sum(change * (self.inputs @ change)))


def _refit(
    operation: Operation,
    whole: Operation,
    kept: np.ndarray | None,
    before: StepwiseInference,
    after: StepwiseInference,
) -> None:
    layer, biased = operation.source, bool(operation.config.get("use_bias"))
    goal, left = _weights(whole, biased), _weights(operation, biased)
    if kept is not None:
        goal = tf.gather(goal, kept, axis=-1)
    size, outputs = left.shape
    halves = [_Moments(np.zeros((size, size)), np.zeros((size, outputs))) for _ in range(2)]
    error = energy = 0.0
    pairs = zip(before.first_inputs(), after.first_inputs(), strict=True)
    for number, (old, new) in enumerate(pairs):
        target = _rows(whole, old, biased) @ goal
        x = _rows(operation, new, biased)
        missing = target - x @ left
        error += float(tf.reduce_sum(tf.square(missing)))
        energy += float(tf.reduce_sum(tf.square(target)))
        halves[number % 2].add(x, missing)
    if error <= _UNCHANGED * energy or not all(moments.rows for moments in halves):
        return
    fitted, held_out = halves
    gains = {ridge: held_out.gain(fitted.change(ridge, biased)) for ridge in _RIDGES}
    ridge = max(gains, key=gains.__getitem__)
    if not gains[ridge] > 0:
        return
    both = _Moments(fitted.inputs + held_out.inputs, fitted.errors + held_out.errors)
    weights = left.numpy() + both.change(ridge, biased)
    if not np.isfinite(weights).all():
        return
    kernel = weights[:-1] if biased else weights
    layer.kernel.assign(kernel.reshape(layer.kernel.shape))
    if biased:
        layer.bias.assign(weights[-1])


def _weights(operation: Operation, biased: bool) -> tf.Tensor:
    """The kernel with a row for each input, and the bias as its last row."""
    layer = operation.source
    rows = tf.cast(tf.reshape(layer.kernel, (-1, layer.kernel.shape[-1])), "float32")
    return tf.concat([rows, tf.cast(layer.bias, "float32")[None]], 0) if biased else rows


def _is_pointwise(config: Mapping[str, Any]) -> bool:
    return {*config["kernel_size"], *np.broadcast_to(config["strides"], 2).tolist()} == {1}


def _rows(operation: Operation, x: tf.Tensor, biased: bool) -> tf.Tensor:
    """What each output is computed from, (images * positions, inputs), and 1 for the bias."""
    x = tf.cast(x, "float32")
    config = operation.config
    if operation.kind == "layers.Conv2D" and not _is_pointwise(config):
        strides, rates = (
            [1, *np.broadcast_to(config[name], 2).tolist(), 1]
            for name in ("strides", "dilation_rate")
        )
        window = [1, *config["kernel_size"], 1]
        x = tf.image.extract_patches(x, window, strides, rates, config["padding"].upper())
    rows = tf.reshape(x, (-1, x.shape[-1]))
    return tf.concat([rows, tf.ones((len(rows), 1))], 1) if biased else rows
