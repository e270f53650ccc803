"""Measure what the channels of a model do on data, once for several criteria.

    images -> model -> outputs of the operations that are probed, and the predictions
                       |
                       per channel: mean magnitude, inactive fraction, effect on the loss

Means are over all images and positions. The effect on the loss is the first term of its Taylor
expansion (Molchanov et al. 2017, arXiv 1611.06440, equation 8): |mean over positions of gradient *
activation| of each image, averaged over the images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kpipe.errors import PruneError
from kpipe.keras_internals import outputs_by_call
from kpipe.prune.dependencies.dependency_graph import DependencyGraph
from kpipe.prune.images import image_batches, require_one_input
from kpipe.prune.surgery.planning import flat_copy

__all__ = ["ActivationProbe", "ActivationStatistics", "probe_activations"]


@dataclass(frozen=True)
class ActivationStatistics:
    """Statistics of the output channels of one operation, each array (channels,).

    Args:
        magnitude: mean absolute value.
        inactive: fraction of values that are not above 0, in [0, 1].
        effect: effect on the loss; None if measured without labels.
    """

    magnitude: np.ndarray
    inactive: np.ndarray
    effect: np.ndarray | None


@dataclass(frozen=True)
class ActivationProbe:
    """A copy of a model that also outputs inner tensors.

    Args:
        model: images -> a list of tensors, the predictions last.
        places: operation name -> places of its outputs in the list, call after call.
    """

    model: keras.Model
    places: dict[str, tuple[int, ...]]

    def measure(self, data: Iterable[Any], *, labels: bool) -> dict[str, ActivationStatistics]:
        """Run the model on data; return operation name -> statistics.

        Args:
            data: batches of images `(batch, height, width, channels)`, as the model takes them, or
                (images, labels, ...), where labels are integers `(batch,)` or class probabilities
                `(batch, classes)`.
            labels: whether to measure the effect on the loss.

        Raises:
            PruneError: no data, or no labels where they are needed.
        """
        sums = self._mean(data, self._gradients if labels else self._values, labels=labels)
        measured = {}
        for name, places in self.places.items():
            calls = [sums[place] for place in places]
            magnitude, inactive, effect = (
                np.mean(kind, axis=0) for kind in zip(*calls, strict=True)
            )
            measured[name] = ActivationStatistics(magnitude, inactive, effect if labels else None)
        return measured

    def average(self, data: Iterable[Any], statistic: Callable[[list[tf.Tensor]], Any]) -> Any:
        """Return the mean over images of a statistic of the probed outputs.

        Args:
            data: as for `measure`, without labels.
            statistic: outputs, in the places of the probe -> nested tensors, each a mean over the
                batch.
        """
        return self._mean(data, lambda images, _: statistic(self._outputs(images)), labels=False)

    def _mean(self, data: Iterable[Any], statistic: Callable[..., Any], *, labels: bool) -> Any:
        total, sums = 0, None
        for images, truth in image_batches(data, self.model, labels=labels):
            found = tf.nest.map_structure(
                lambda x: x.numpy().astype(float), statistic(images, truth)
            )
            weight = len(images)
            if sums is None:
                sums = tf.nest.map_structure(np.zeros_like, found)
            for one, other in zip(tf.nest.flatten(sums), tf.nest.flatten(found), strict=True):
                one += weight * other
            total += weight
        if sums is None:
            raise PruneError(
                "there are no images to measure activations on",
                expected="batches of images, (batch, height, width, channels)",
                fix="pass data=, or calibration= to prune_filters: a list of batches, or a finite "
                "tf.data.Dataset",
            )
        return tf.nest.map_structure(lambda x: x / total, sums)

    def _outputs(self, images: tf.Tensor) -> list[tf.Tensor]:
        *outputs, _ = self.model(images, training=False)
        return outputs

    def _values(self, images: tf.Tensor, truth: tf.Tensor) -> list[list[tf.Tensor]]:
        outputs = self._outputs(images)
        return _statistics(outputs, [tf.zeros_like(x) for x in outputs])

    def _gradients(self, images: tf.Tensor, truth: tf.Tensor) -> list[list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            tape.watch(images)  # so that frozen layers have gradients too
            *outputs, predictions = self.model(images, training=False)
            # A sum: each image has the gradient of its own loss.
            loss = tf.reduce_sum(_crossentropy(truth, predictions))
        gradients = tape.gradient(loss, outputs, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return _statistics(outputs, gradients)


def _statistics(
    outputs: Sequence[tf.Tensor], gradients: Sequence[tf.Tensor]
) -> list[list[tf.Tensor]]:
    """For each output, the fields of `ActivationStatistics` as means over the batch."""
    found = []
    for raw, gradient in zip(outputs, gradients, strict=True):
        output = tf.cast(raw, "float32")  # sums of half precision overflow
        inner = list(range(1, output.shape.rank - 1))
        effect = output * tf.cast(gradient, "float32")
        kinds = (tf.abs(output), tf.cast(output <= 0, "float32"), effect)
        found.append([tf.reduce_mean(tf.abs(tf.reduce_mean(x, inner)), 0) for x in kinds])
    return found


def _crossentropy(truth: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
    """Cross-entropy of each image; a single output is the probability of class 1."""
    single = predictions.shape[-1] == 1
    count, classes = len(predictions), max(2, predictions.shape[-1])
    shapes = [(count,), (count, 1)] if truth.dtype.is_integer or single else [(count, classes)]
    values = ""
    if truth.dtype.is_integer:
        low, high = int(tf.reduce_min(truth)), int(tf.reduce_max(truth))
        values = "" if 0 <= low <= high < classes else f", from {low} to {high}"
    numbers = truth.dtype.is_integer or truth.dtype.is_floating
    if tuple(truth.shape) not in shapes or not numbers or values:
        raise PruneError(
            "the labels do not fit the model's predictions",
            expected=f"integers from 0 to {classes - 1}, or probabilities of {classes} classes",
            received=f"{truth.dtype.name} {tuple(truth.shape)}{values}",
        )
    if truth.dtype.is_integer and not single:
        return keras.losses.sparse_categorical_crossentropy(truth, predictions)
    if single:
        truth = tf.reshape(tf.cast(truth, predictions.dtype), tf.shape(predictions))
        return keras.losses.binary_crossentropy(truth, predictions)
    return keras.losses.categorical_crossentropy(truth, predictions)


def probe_activations(dependencies: DependencyGraph, names: Iterable[str]) -> ActivationProbe:
    """Return a copy of the model that also outputs the tensors of some operations.

    Args:
        dependencies: of a model of one input and one output, which is not changed.
        names: operations, as `kpipe.prune.plan` names them.
    """
    model = dependencies.model
    require_one_input(
        model,
        f"the activations of {model.name!r} cannot be measured",
        "use a criterion that needs only weights: l1, l2, bn_scale, geometric_median",
    )
    flat = flat_copy(model, dependencies.graph)
    known = {operation.name: operation for operation in flat.operations}
    outputs: list[Any] = []
    places: dict[str, tuple[int, ...]] = {}
    for name in names:
        made = [tensor for call in outputs_by_call(known[name]) for tensor in call]
        places[name] = tuple(range(len(outputs), len(outputs) + len(made)))
        outputs += made
    return ActivationProbe(keras.Model(flat.inputs, [*outputs, *flat.outputs]), places)
