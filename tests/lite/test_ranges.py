from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpipe.lite.calibration import calibration_images
from kpipe.lite.conversion import calibrated
from kpipe.lite.ranges import least_error, narrowed
from kpipe.lite.rewriting import opened

from .conftest import photos


def squared_error(low: float, high: float, values: np.ndarray) -> float:
    """By the equation, value for value."""
    scale = (high - low) / 255
    zero_point = round(-low / scale)
    held = [min(max(round(value / scale) + zero_point, 0), 255) for value in values]
    return sum(
        (scale * (q - zero_point) - value) ** 2 for q, value in zip(held, values, strict=True)
    )


ends = st.floats(-100, 100).map(lambda value: round(value, 2))


@given(
    st.lists(st.tuples(ends, st.integers(1, 50)), min_size=2, max_size=60, unique_by=lambda v: v[0])
)
def test_the_error_is_never_larger_than_between_the_ends_that_were_seen(counted) -> None:
    values, counts = map(np.array, zip(*counted, strict=True))
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    found = least_error(values.min(), values.max(), values, counts)
    assert low <= found[0] <= 0 <= found[1] <= high
    before, after = (
        squared_error(*pair, np.repeat(values, counts)) for pair in ((low, high), found)
    )
    assert after <= before * (1 + 1e-6) + 1e-9


def test_a_few_far_values_are_clipped() -> None:
    # Clipping one value to 12 costs 28 ** 2, and steps of 44 / 255 instead of 16 / 255 cost
    # (44 ** 2 - 16 ** 2) / 255 ** 2 / 12 for each of the others.
    for count, narrower in ((100_000, False), (1_000_000, True)):
        values = np.append(np.random.default_rng(0).normal(0, 1, count), 40.0)
        counts, edges = np.histogram(values, 2048)
        low, high = least_error(edges[0], edges[-1], (edges[1:] + edges[:-1]) / 2, counts)
        assert (high < 20) is narrower
        assert -6 < low < -3


def test_what_int8_holds_exactly_keeps_its_ends() -> None:
    levels = np.arange(-100, 156) / 100
    assert least_error(-1.0, 1.55, levels, np.full(256, 10)) == (-1.0, 1.55)


@pytest.fixture(scope="module")
def glaring() -> keras.Model:
    """A channel of its first layer is far above the others where a pixel is blue alone."""
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 1, activation="relu", name="stem")(inputs)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="top")(x))
    kernel = np.eye(3, 4) / 255
    kernel[:, 3] = [-1, -1, 1]
    model.get_layer("stem").set_weights([kernel[None, None], np.zeros(4)])
    return model


def spans(content: bytes) -> dict[str, tuple[float, float]]:
    return {
        tensor.name.decode(): (float(told.min[0]), float(told.max[0]))
        for tensor in opened(content).subgraphs[0].tensors
        if (told := tensor.quantization) is not None and told.min is not None
    }


def test_only_ranges_of_many_values_are_narrowed_and_never_the_pixels(glaring) -> None:
    grey = np.repeat(photos(16)[..., :1], 3, axis=-1)
    grey[0, :2, :2] = [0, 0, 255]
    images = calibration_images([grey], (32, 32, 3))
    before = calibrated(glaring, images).content
    after = spans(narrowed(before, images))
    changed = {name for name, span in spans(before).items() if after[name] != span}
    (stem,) = (name for name in changed if "stem" in name)
    assert spans(before)[stem][1] == pytest.approx(255)
    assert after[stem][1] < 250
    assert not any("pool" in name or "top" in name for name in changed)  # 64 and 32 values
    assert (0.0, 255.0) in after.values()
