"""Check that a model can train on batches, before the first step."""

from __future__ import annotations

from functools import partial

import keras
import tensorflow as tf

from kpipe.errors import TrainingError
from kpipe.keras_graph import find_graph

__all__ = ["refuse_unfit_batches"]


def refuse_unfit_batches(model: keras.Model, batches: tf.data.Dataset) -> None:
    """Raise a TrainingError unless a model maps the images of batches to one row of classes each.

    Args:
        model: images -> probabilities (batch, classes).
        batches: (images, labels) or (images, labels, weights).
    """
    images, labels = batches.element_spec[:2]
    graph = find_graph(model)
    if graph is not None:
        takes, gives = graph.inputs, graph.outputs
    else:  # a subclassed or unbuilt model
        try:
            traced = tf.function(partial(model, training=False)).get_concrete_function(images)
        except Exception as problem:  # whatever its layers raise
            raise TrainingError(
                f"{model.name!r} fails on the images of the data",
                received=" ".join(str(problem).split())[:300],
            ) from problem
        takes, gives = [images], tf.nest.flatten(traced.structured_outputs)
    shapes = [[tuple(x.shape) for x in side] for side in (takes, gives)]
    if (
        len(takes) != 1
        or len(gives) != 1
        or not isinstance(images, tf.TensorSpec)
        or not images.shape.is_compatible_with(takes[0].shape)
        or len(gives[0].shape) != 2
        or (labels.dtype.is_floating and not labels.shape.is_compatible_with(gives[0].shape))
    ):
        raise TrainingError(
            f"the data does not fit {model.name!r}",
            expected="images -> (batch, classes), for labels (batch,) or (batch, classes)",
            received=f"a model from {shapes[0]} to {shapes[1]}, and {images}, {labels}",
            fix="batch the dataset, resize the images, and end the model in its classes",
        )
