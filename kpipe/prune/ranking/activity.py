"""What the channels of a model do on data: measured once, read by several criteria.

    image -> model -> outputs of the operations that are asked about, and the model's answer
                      |
                      per channel: mean magnitude, share that is not positive, effect on the loss

Means are over all images and positions; the effect on the loss is that of Molchanov et al. 2017
(arXiv 1611.06440, equation 8): the first term of the loss's Taylor expansion, |mean over positions
of gradient times activation| of each image, and the mean of it over images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kpipe.errors import PruneError
from kpipe.keras_internals import first_outputs
from kpipe.prune.surgery.planning import copied

__all__ = ["Activity", "Watched", "image_batches", "refuse_several_inputs", "watch"]


@dataclass(frozen=True)
class Activity:
    """What the channels of one operation do, each array (channels,).

    Args:
        magnitude: mean absolute value.
        inactive: share of values that are not above 0, in [0, 1].
        effect: on the loss; None where no labels were asked for.
    """

    magnitude: np.ndarray
    inactive: np.ndarray
    effect: np.ndarray | None


@dataclass(frozen=True)
class Watched:
    """A copy of a model that gives inner tensors beside its answer.

    Args:
        probe: images -> a list of tensors, the model's answer last.
        places: operation name -> places of its outputs in the list, one for each call.
    """

    probe: keras.Model
    places: dict[str, tuple[int, ...]]

    def measure(self, data: Iterable[Any], *, labels: bool) -> dict[str, Activity]:
        """Runs the model over data.

        Args:
            data: batches of images `(batch, height, width, channels)`, as the model takes them; or
                (images, labels), labels being integers `(batch,)` or shares of the classes
                `(batch, classes)`; anything after these is not looked at.
            labels: whether the effect on the loss is asked for.

        Raises:
            PruneError: no data, or no labels where they are asked for.
        """
        step = self._gradients if labels else self._values
        sums = self._mean(data, step, labels=labels)
        measured = {}
        for name, places in self.places.items():
            calls = [sums[place] for place in places]
            magnitude, inactive, effect = (
                np.mean(kind, axis=0) for kind in zip(*calls, strict=True)
            )
            measured[name] = Activity(magnitude, inactive, effect if labels else None)
        return measured

    def average(self, data: Iterable[Any], of: Callable[[list[tf.Tensor]], Any]) -> Any:
        """The mean over images of what a function of the watched outputs gives for a batch.

        Args:
            data: as for `measure`, without labels.
            of: outputs, in the places of the probe -> nested tensors, each a mean over the batch.
        """
        return self._mean(data, lambda images, truth: of(self._outputs(images)), labels=False)

    def _mean(self, data: Iterable[Any], of_batch: Callable[..., Any], *, labels: bool) -> Any:
        total, sums = 0, None
        for images, truth in _batches(data, self.probe, labels):
            found = tf.nest.map_structure(
                lambda x: x.numpy().astype(float), of_batch(images, truth)
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
                fix="give data=, or prune_filters a calibration=: a list of batches, or a finite "
                "tf.data.Dataset",
            )
        return tf.nest.map_structure(lambda x: x / total, sums)

    def _outputs(self, images: tf.Tensor) -> list[tf.Tensor]:
        *outputs, _ = self.probe(images, training=False)
        return outputs

    def _values(self, images: tf.Tensor, truth: tf.Tensor) -> list[list[tf.Tensor]]:
        outputs = self._outputs(images)
        return _statistics(outputs, [tf.zeros_like(x) for x in outputs])

    def _gradients(self, images: tf.Tensor, truth: tf.Tensor) -> list[list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            tape.watch(images)  # so that frozen layers are followed too
            *outputs, answer = self.probe(images, training=False)
            # A sum: each image has the gradient of its own loss.
            loss = tf.reduce_sum(_crossentropy(truth, answer))
        gradients = tape.gradient(loss, outputs, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return _statistics(outputs, gradients)


def _statistics(
    outputs: Sequence[tf.Tensor], gradients: Sequence[tf.Tensor]
) -> list[list[tf.Tensor]]:
    """For each output, means over the batch of what `Activity` holds."""
    found = []
    for given, gradient in zip(outputs, gradients, strict=True):
        output = tf.cast(given, "float32")  # sums of half precision overflow
        inner = list(range(1, output.shape.rank - 1))
        effect = output * tf.cast(gradient, "float32")
        kinds = (tf.abs(output), tf.cast(output <= 0, "float32"), effect)
        found.append([tf.reduce_mean(tf.abs(tf.reduce_mean(x, inner)), 0) for x in kinds])
    return found


def _crossentropy(truth: tf.Tensor, answer: tf.Tensor) -> tf.Tensor:
    """Of each image; of one output, which is the probability of the second of two classes, too."""
    classes = max(2, answer.shape[-1])
    if truth.dtype.is_integer:
        if tf.reduce_any((truth < 0) | (truth >= classes)):
            raise PruneError(
                "the labels are not those of the model's answers",
                expected=f"integers from 0 to {classes - 1}, or shares of {classes} classes",
                received=f"from {int(tf.reduce_min(truth))} to {int(tf.reduce_max(truth))}",
            )
        if answer.shape[-1] > 1:
            return keras.losses.sparse_categorical_crossentropy(truth, answer)
    if answer.shape[-1] == 1:
        truth = tf.reshape(tf.cast(truth, answer.dtype), tf.shape(answer))
        return keras.losses.binary_crossentropy(truth, answer)
    return keras.losses.categorical_crossentropy(truth, answer)


def refuse_several_inputs(model: keras.Model, what: str, fix: str) -> None:
    """Batches of images feed one input.

    Raises:
        PruneError: the model has more; `what` cannot be done, `fix` is to be done instead.
    """
    if len(model.inputs) > 1:
        raise PruneError(
            what,
            expected="a model of one input",
            received=f"{len(model.inputs)} inputs",
            fix=fix,
        )


def image_batches(data: Iterable[Any] | None, model: keras.Model) -> Iterable[tf.Tensor]:
    """The images of each batch, float32; labels beside them are not looked at.

    Args:
        data: one array of images, or batches of images or (images, ...); None for none.
        model: of one input, which takes them.

    Raises:
        PruneError: images of another size or number of channels.
    """
    return (images for images, _ in _batches(data, model, labels=False))


def _batches(
    data: Iterable[Any] | None, model: keras.Model, labels: bool
) -> Iterable[tuple[tf.Tensor, tf.Tensor]]:
    taken = tf.TensorShape(model.inputs[0].shape)
    data = [data] if isinstance(data, np.ndarray | tf.Tensor) else data
    if not isinstance(data, Iterable | None):
        raise PruneError(
            "there are no images to measure activations on",
            expected="batches of images, (batch, height, width, channels)",
            received=repr(data),
        )
    for item in data or ():
        images, *rest = item if isinstance(item, tuple | list) else (item,)
        if isinstance(images, dict) and len(images) == 1:  # a model of one input, by its name
            (images,) = images.values()
        shape = np.shape(images)
        if len(shape) == taken.rank and not taken.is_compatible_with(shape):
            raise PruneError(
                "the images do not fit the model",
                expected=str(tuple(taken)),
                received=str(shape),
                fix="give batches as the model takes them",
            )
        if labels and not rest:
            raise PruneError(
                "this criterion needs labels, and the data has none",
                expected="batches (images, labels)",
                received="images alone",
            )
        truth = tf.convert_to_tensor(rest[0]) if labels else tf.constant(0)
        yield tf.cast(images, "float32"), truth


def watch(model: keras.Model, names: Iterable[str]) -> Watched:
    """A model that gives the outputs of some of its operations, nested ones included.

    Args:
        model: of one input and one output; it stays as it is.
        names: operations, as `kpipe.prune.plan` names them.
    """
    refuse_several_inputs(
        model,
        f"what {model.name!r} does on images cannot be measured",
        "rank by what looks at weights alone: l1, l2, bn_scale, geometric_median",
    )
    flat = copied(model)
    known = {operation.name: operation for operation in flat.operations}
    outputs: list[Any] = []
    places: dict[str, tuple[int, ...]] = {}
    for name in names:
        made = first_outputs(known[name])
        places[name] = tuple(range(len(outputs), len(outputs) + len(made)))
        outputs += made
    return Watched(keras.Model(flat.inputs, [*outputs, *flat.outputs]), places)
