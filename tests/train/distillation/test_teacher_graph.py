"""A teacher's graph for inference equals the teacher, with fewer operations."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest

from kpipe.ensemble import average
from kpipe.errors import TrainingError
from kpipe.keras_graph import read_graph
from kpipe.train.distillation.teacher_graph import TeacherGraph

IMAGES = np.random.default_rng(0).uniform(0, 1, (6, 8, 8, 3)).astype("float32")
Change = Callable[[keras.KerasTensor], keras.KerasTensor]


def network(body: Change, seed: int = 0) -> keras.Model:
    """A classifier around `body`, with random moving means and variances."""
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(body(keras.layers.Rescaling(2.0)(pixels)))
    model = keras.Model(pixels, keras.layers.Dense(3, "softmax")(x))
    generator = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([generator.uniform(0.5, 2, w.shape) for w in layer.weights])
        elif isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            # Layers are made when the tests are collected, with initial weights of that moment.
            layer.set_weights([generator.normal(0, 0.1, w.shape) for w in layer.weights])
    return model


def operations(model: keras.Model) -> int:
    """The number of operations without that of the input."""
    return len(read_graph(model, TrainingError).calls) - 1


def normalized(layer: keras.Layer, **options: bool) -> Change:
    return lambda x: keras.layers.ReLU()(keras.layers.BatchNormalization(**options)(layer(x)))


def shared(x: keras.KerasTensor) -> keras.KerasTensor:
    """A convolution that something else reads besides its normalization."""
    x = keras.layers.Conv2D(4, 3, padding="same")(x)
    return keras.layers.Add()([x, keras.layers.BatchNormalization()(x)])


def dropped(x: keras.KerasTensor) -> keras.KerasTensor:
    x = keras.layers.Conv2D(4, 3, padding="same")(x)
    return keras.layers.Dropout(0.5)(x) + keras.layers.SpatialDropout2D(0.5)(x)


def nested(x: keras.KerasTensor) -> keras.KerasTensor:
    inner = keras.Input((8, 8, 3))
    y = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(inner))
    return keras.Model(inner, y)(x)


CONV, DEPTHWISE = keras.layers.Conv2D, keras.layers.DepthwiseConv2D


@pytest.mark.parametrize(
    ("body", "fewer"),
    [
        (normalized(CONV(4, 3)), 1),
        (normalized(CONV(4, 3, use_bias=False, strides=2), scale=False), 1),
        (normalized(CONV(6, 3, groups=3), center=False), 1),
        (normalized(DEPTHWISE(3, depth_multiplier=2)), 1),
        (normalized(keras.layers.Dense(5)), 1),
        (nested, 1),
        (normalized(CONV(4, 3, activation="relu")), 0),
        (normalized(keras.layers.SeparableConv2D(4, 3)), 0),
        (normalized(keras.layers.ReLU()), 0),
        (shared, 0),
        (dropped, 2),
    ],
)
def test_outputs_are_the_teachers_with_fewer_operations(body: Change, fewer: int) -> None:
    model = network(body)
    before, expected = model.get_weights(), np.array(model(IMAGES, training=False))
    graph = TeacherGraph(model)
    (found,) = graph(IMAGES)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert expected.std() > 1e-3
    assert graph.steps == operations(model) - fewer
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_members_compute_a_shared_part_once() -> None:
    def body(x: keras.KerasTensor) -> keras.KerasTensor:
        x = normalized(CONV(4, 3))(x)
        return normalized(CONV(5, 3))(x)

    one, other = network(body), network(body)
    kernel = next(x for x in reversed(other.layers) if isinstance(x, CONV)).kernel
    kernel.assign(kernel + 0.1)
    ensemble = average([one, other])
    graph = TeacherGraph(ensemble)
    # Rescaling, convolution and ReLU; from the second convolution on, the members differ.
    assert graph.steps == operations(ensemble) - 3 - 4
    np.testing.assert_allclose(graph(IMAGES)[0], ensemble(IMAGES), atol=1e-6)
    assert TeacherGraph(average([one, network(body)])).steps == TeacherGraph(one).steps + 2


def test_outputs_are_the_same_in_training_of_another_model() -> None:
    """A call inside of a model in training would otherwise take over its mode."""
    model = network(normalized(CONV(4, 3, activation="relu")))
    graph = TeacherGraph(model)

    class Student(keras.layers.Layer):
        def call(self, x: object, training: bool = False) -> object:
            return graph(x)[0]

    expected = np.array(model(IMAGES, training=False))
    np.testing.assert_allclose(Student()(IMAGES, training=True), expected, atol=1e-6)
