"""Multiply-accumulates against published counts and against counting by hand."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from kpipe.errors import PruneError
from kpipe.prune import count_macs, count_params, plan, prunable_fraction
from tests.prune import nets


def test_published_counts() -> None:
    """Sandler et al. 2018, table 4: 300 million for MobileNetV2; He et al. 2016b: 3.5 billion."""
    mobile = keras.applications.MobileNetV2(weights=None)
    assert round(count_macs(mobile) / 1e6) == 301
    assert count_params(mobile) == mobile.count_params()


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        (layers.Conv2D(5, 3, padding="same"), 8 * 8 * 9 * 4 * 5),
        (layers.Conv2D(6, 3, 2, groups=2), 3 * 3 * 9 * 2 * 6),
        (layers.Conv2D(8, 3, groups=4), 6 * 6 * 9 * 1 * 8),
        (layers.DepthwiseConv2D(3, depth_multiplier=2), 6 * 6 * 9 * 4 * 2),
        (layers.SeparableConv2D(5, 3, depth_multiplier=2), 6 * 6 * (9 * 8 + 8 * 5)),
        (layers.Conv2DTranspose(5, 3, 2), 8 * 8 * 9 * 4 * 5),
        (layers.Dense(5), 8 * 8 * 4 * 5),
        (layers.BatchNormalization(), 0),
    ],
)
def test_counts_by_hand(layer: layers.Layer, macs: int) -> None:
    assert count_macs(keras.Sequential([keras.Input((8, 8, 4)), layer])) == macs


def test_positions_that_a_reshape_lays_along_the_batch_count() -> None:
    inputs = nets.image(6)
    rows = layers.Dense(5)(keras.ops.reshape(inputs, (-1, 6)))
    back = keras.ops.reshape(rows, (-1, 64, 5))
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(back)))
    assert count_macs(model) == 64 * 6 * 5 + 5 * 3


def test_a_layer_used_twice_costs_twice() -> None:
    inputs = nets.image()
    layer = layers.Conv2D(3, 1)
    assert count_macs(keras.Model(inputs, layer(layer(inputs)))) == 2 * 8 * 8 * 9


def test_an_open_image_size_is_refused_but_can_be_planned() -> None:
    inputs = keras.Input((None, None, 3))
    model = nets.classifier(inputs, layers.Conv2D(6, 3, name="first")(inputs))
    with pytest.raises(PruneError, match="fixed image size"):
        count_macs(model)
    made = plan(model, {"first": [0]})
    assert made.macs_after is None and made.params_after < made.params_before


def test_the_prunable_fraction_excludes_work_between_protected_channels() -> None:
    inputs = nets.image()
    x = layers.Conv2D(4, 1, name="free")(inputs)
    x = layers.Conv2D(5, 1, name="read")(x)
    x = layers.LayerNormalization()(x)
    model = keras.Model(inputs, layers.Conv2D(2, 1, name="stuck")(x))
    assert prunable_fraction(model) == pytest.approx((12 + 20) / (12 + 20 + 10))
    assert prunable_fraction(nets.lite()) > 0.99
