from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpipe.lite import LiteModel, convert
from kpipe.lite.export.calibration_images import prepare_calibration_images
from kpipe.lite.export.conversion import calibrate
from kpipe.lite.int8.calibrated_model import CalibratedModel
from kpipe.lite.int8.ranges import fit_ranges, least_error_range
from kpipe.lite.tflite_file import parse
from tests.lite.conftest import photos


def squared_error(low: float, high: float, values: np.ndarray) -> float:
    """Apply the equation value by value."""
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
def test_the_error_is_never_larger_than_for_the_full_range(counted) -> None:
    values, counts = map(np.array, zip(*counted, strict=True))
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    found = least_error_range(values, counts)
    assert low <= found[0] <= 0 <= found[1] <= high
    before, after = (
        squared_error(*pair, np.repeat(values, counts)) for pair in ((low, high), found)
    )
    assert after <= before * (1 + 1e-6) + 1e-9


def test_a_few_outliers_are_clipped() -> None:
    # Clipping one value to 12 costs 28 ** 2, and steps of 44 / 255 instead of 16 / 255 cost
    # (44 ** 2 - 16 ** 2) / 255 ** 2 / 12 for each of the others.
    for count, narrower in ((100_000, False), (1_000_000, True)):
        values = np.append(np.random.default_rng(0).normal(0, 1, count), 40.0)
        counts, edges = np.histogram(values, 2048)
        low, high = least_error_range((edges[1:] + edges[:-1]) / 2, counts)
        assert (high < 20) is narrower
        assert -6 < low < -3


def test_values_that_int8_represents_exactly_keep_their_range() -> None:
    levels = np.arange(-100, 156) / 100
    assert least_error_range(levels, np.full(256, 10)) == (-1.0, 1.55)


def glaring(classes: int = 2) -> keras.Model:
    """Return a model in which one channel exceeds the others where a pixel is pure blue."""
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 1, activation="relu", name="stem")(inputs)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dense(classes, activation="softmax", name="top")(x)
    model = keras.Model(inputs, x)
    kernel = np.eye(3, 4) / 255
    kernel[:, 3] = [-1, -1, 1]
    model.get_layer("stem").set_weights([kernel[None, None], np.zeros(4)])
    # Most logits are small, and a few are large.
    scores = np.random.default_rng(0).standard_t(2, (4, classes))
    model.get_layer("top").set_weights([scores, np.zeros(classes)])
    return model


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """Return grey images, with blue pixels in the first."""
    grey = np.repeat(photos(64)[..., :1], 3, axis=-1)
    grey[0, :2, :2] = [0, 0, 255]
    return prepare_calibration_images([grey], (32, 32, 3))


def spans(model: CalibratedModel) -> dict[str, tuple[float, float]]:
    return {
        tensor.name.decode(): (float(quantization.min[0]), float(quantization.max[0]))
        for tensor in parse(model.content).subgraphs[0].tensors
        if (quantization := tensor.quantization) is not None and quantization.min is not None
    }


def test_ranges_of_feature_maps_are_narrowed_and_those_of_vectors_are_not(images) -> None:
    before = calibrate(glaring(classes=400), images)  # 25,600 logits
    after = spans(fit_ranges(before, images))
    changed = [name for name, span in spans(before).items() if after[name] != span]
    assert ["stem" in name for name in changed] == [True]
    assert spans(before)[changed[0]][1] == pytest.approx(255)
    assert after[changed[0]][1] < 250


def test_the_logits_of_a_softmax_over_maps_keep_their_range(images) -> None:
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(3, 1, name="attention")(inputs)
    x = keras.layers.Multiply()([keras.layers.Softmax(axis=-1)(x), inputs])
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    model.get_layer("attention").set_weights([np.eye(3)[None, None] ** 2, np.zeros(3)])
    before = calibrate(model, images)
    (name,) = (name for name in spans(before) if "attention" in name)
    assert spans(fit_ranges(before, images))[name] == spans(before)[name]


def test_a_few_values_keep_their_range(images) -> None:
    before = calibrate(glaring(), images)
    assert spans(fit_ranges(before, images[:2])) == spans(before)  # 8,192 values


def test_pixels_keep_their_range() -> None:
    dark = np.random.default_rng(0).gamma(1.0, 2.0, (24, 32, 32, 3)).clip(0, 100)
    images = prepare_calibration_images([dark], (32, 32, 3))
    before = calibrate(glaring(), images)
    pixels = next(name for name, span in spans(before).items() if span == (0.0, 255.0))
    assert spans(fit_ranges(before, images))[pixels] == (0.0, 255.0)
    counts = np.histogram(dark, 255, (0, 255))[0]
    assert least_error_range(np.arange(255) + 0.5, counts)[1] < 200, "narrowing would pay"


def test_an_operand_that_a_sum_overwrites_has_the_range_of_its_values(images) -> None:
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="wide")(inputs)
    narrow = keras.layers.Conv2D(4, 3, padding="same", activation="relu6", name="narrow")(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Add()([x, narrow]))
    calibrated = calibrate(keras.Model(inputs, x), images)
    (name,) = (name for name in spans(calibrated) if "narrow" in name)
    low, high = spans(fit_ranges(calibrated, images))[name]
    assert low == 0 and 5.5 < high < 6.01


def test_a_layer_that_is_0_in_all_images_has_a_range(images) -> None:
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu", name="dead")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x))
    model.get_layer("dead").bias.assign(np.full(4, -1e4))
    found = [s for name, s in spans(calibrate(model, images)).items() if "dead" in name]
    assert found == [(0.0, 1.0)]
    pixels = np.concatenate(images)
    expected = model.predict(pixels, verbose=0)
    found = LiteModel(convert(model, "int8", [pixels])).predict(pixels)
    assert np.abs(found - expected).max() < 0.01
