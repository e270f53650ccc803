"""A model in memory is rebuilt with its own functions and classes, not with names of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from kpipe.errors import SparsityError
from kpipe.lite import convert
from kpipe.prune import Selection, plan, prune_filters, remove_filters
from kpipe.sparsity import to_tf_keras
from tests.prune import nets
from tests.prune.masking import randomize, worst_difference

# Keras' own save converts its variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def mish(x: Any) -> Any:
    """An activation named like one of Keras."""
    return ops.relu(x) * 1.5


def scaled(x: Any) -> Any:
    return x / 127.5 - 1


class Clipped:
    """An activation with state."""

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def __call__(self, x: Any) -> Any:
        return ops.clip(x, 0, self.limit)

    def get_config(self) -> dict[str, float]:
        return {"limit": self.limit}


class Doubled(layers.Layer):
    """Without rule and without registration."""

    def call(self, x: Any) -> Any:
        return 2 * x

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


STEPS: dict[str, Callable[[], Any]] = {
    "a Python lambda": lambda: layers.Lambda(lambda x: x / 127.5 - 1),
    "a function": lambda: layers.Lambda(scaled),
    "a lambda with an output shape": lambda: layers.Lambda(lambda x: x[:, 1:], lambda s: s),
    "an activation": lambda: layers.Conv2D(4, 1, activation=mish),
    "an activation with state": lambda: layers.Conv2D(4, 1, activation=Clipped(2.0)),
    "an activation inside": lambda: layers.TimeDistributed(layers.Dense(4, activation=mish)),
    "a lambda inside": lambda: layers.TimeDistributed(layers.Lambda(lambda x: 2 * x)),
    "a layer inside": lambda: layers.TimeDistributed(Doubled()),
}


def _model(step: Any) -> keras.Model:
    pixels = nets.image()
    x = layers.Conv2D(6, 3, activation="mish", name="keras_mish")(step(pixels))
    return randomize(nets.classifier(pixels, layers.Conv2D(5, 3, name="last")(x)))


@pytest.mark.parametrize("name", STEPS)
def test_what_can_be_planned_can_be_removed(name: str) -> None:
    whole = _model(STEPS[name]())
    model = remove_filters(whole, plan(whole, {}))  # opens what is in TimeDistributed
    made = plan(whole, {"keras_mish": [0, 4], "last": [1]})
    image = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(model(image), whole(image), rtol=1e-5, atol=1e-6)
    assert worst_difference(model, remove_filters(whole, made), made.kept, image) < 1e-4


@pytest.mark.parametrize("name", STEPS)
def test_the_rounds_of_a_loop_are_read_with_them(name: str) -> None:
    model, image = _model(STEPS[name]()), np.ones((2, 8, 8, 3), "float32")
    seen = []
    result = prune_filters(
        model,
        params=0.8,
        rounds=2,
        finetune=lambda small, number: seen.append(np.asarray(small(image))),
        evaluate=lambda small: 0.5,
        selection=Selection(round_to=1),
    )
    assert np.array_equal(result.model(image), seen[-1])


def test_they_are_converted() -> None:
    for name in ("a Python lambda", "an activation"):
        assert convert(_model(STEPS[name]()))


@pytest.mark.parametrize("name", STEPS)
def test_tf_keras_has_no_such_layers_and_says_so(name: str) -> None:
    with pytest.raises(SparsityError, match="cannot be converted"):
        to_tf_keras(_model(STEPS[name]()))
