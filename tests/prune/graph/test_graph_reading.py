"""Models nested in a model are read as Keras runs them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from kpipe.errors import PruneError
from kpipe.prune import count_macs, plan, prunable_fraction, remove_filters
from tests.prune.masking import random_request, randomize, worst_difference


def copied(model: keras.Model) -> tuple[np.ndarray, np.ndarray]:
    """Return the outputs of a model of several inputs, and of its opened copy."""
    randomize(model)
    random = np.random.default_rng(0)
    given = [random.normal(size=(2, *x.shape[1:])).astype("float32") for x in model.inputs]
    opened = remove_filters(model, plan(model, {}))
    return np.asarray(model(given, training=False)), np.asarray(opened(given, training=False))


def difference() -> keras.Model:
    """Two inputs whose order by name is not the one they were declared in."""
    z, a = keras.Input((4,), name="z"), keras.Input((4,), name="a")
    return keras.Model([z, a], layers.Dense(4)(a) - 2.0 * layers.Dense(4)(z), name="inner")


@pytest.mark.parametrize("extra", [(), ("b", "zz")])
def test_inputs_given_by_name_are_distinguished(extra: tuple[str, ...]) -> None:
    """Names that the nested model does not have are ignored."""
    first, second = keras.Input((4,), name="first"), keras.Input((4,), name="second")
    made = difference()({"z": first, "a": second, **dict.fromkeys(extra, first)})
    model = keras.Model([first, second], layers.Dense(2)(made))
    np.testing.assert_array_equal(*copied(model))


def test_inputs_declared_by_name_are_distinguished() -> None:
    z, a = keras.Input((4,), name="z"), keras.Input((4,), name="a")
    inner = keras.Model({"z": z, "a": a}, layers.Dense(4)(a) - 2.0 * layers.Dense(4)(z))
    first, second = keras.Input((4,), name="first"), keras.Input((4,), name="second")
    made = inner({"a": second, "z": first})
    np.testing.assert_array_equal(*copied(keras.Model([first, second], layers.Dense(2)(made))))


def test_a_call_of_another_rank_is_refused() -> None:
    inside = keras.Input((4, 1))
    inner = keras.Model(inside, layers.Flatten()(inside), name="inner")
    outside = keras.Input((4,))  # to which Keras adds a last axis of 1
    with pytest.raises(PruneError, match="call of the nested model that holds 'flatten"):
        plan(keras.Model(outside, inner(outside)), {})


def test_a_backbone_of_open_size_has_the_size_that_it_is_called_on() -> None:
    """As most transfer learning is written: only the outer model fixes the size."""

    def model(size: int | None) -> keras.Model:
        pixels = keras.Input((size, size, 3))
        x = layers.Conv2D(8, 3, 2, padding="same", activation="relu")(pixels)
        x = layers.Resizing(5, 5)(layers.ZeroPadding2D(1)(layers.Add()([x, 0.5 * x])))
        x = layers.Conv2D(8, 3)(layers.BatchNormalization()(x))
        backbone = keras.Model(pixels, layers.Dropout(0.1)(x))
        outer = keras.Input((12, 12, 3))
        pooled = layers.GlobalAveragePooling2D()(backbone(outer, training=False))
        return randomize(keras.Model(outer, layers.Dense(2)(pooled)))

    opened, fixed = model(None), model(12)
    assert count_macs(opened) == count_macs(fixed)
    assert prunable_fraction(opened) == prunable_fraction(fixed) == 1
    flat = remove_filters(opened, plan(opened, {}))
    request = random_request(flat, 1)
    made = plan(opened, request)
    assert made.macs_before == count_macs(fixed)
    image = np.random.default_rng(0).uniform(-1, 1, (2, 12, 12, 3)).astype("float32")
    small = remove_filters(opened, made)
    assert worst_difference(flat, small, made.kept, image) < 1e-4
    assert count_macs(small) == made.macs_after
