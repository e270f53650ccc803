from __future__ import annotations

import numpy as np
import pytest

from kpipe.lite import convert
from kpipe.lite.export.calibration import calibration_images
from kpipe.lite.export.conversion import calibrated
from kpipe.lite.int8.biases import mean_errors
from kpipe.lite.int8.quantizing import Ranges, quantized, refined
from kpipe.lite.int8.ranges import narrowed

from .conftest import photos


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return calibration_images([photos(100)], (32, 32, 3))


@pytest.fixture(scope="module")
def ranges(model, images) -> Ranges:
    return calibrated(model, images)


def test_means_are_measured_between_the_ranges_of_least_error(ranges, images) -> None:
    found = refined(ranges, images[:20])
    assert found.content == narrowed(ranges.content, images[:20]) != ranges.content
    expected = mean_errors(found.content, images[:20])
    assert found.shifts.keys() == expected.keys()
    for result, error in expected.items():
        np.testing.assert_array_equal(found.shifts[result], error)


def test_of_many_images_some_of_the_whole_row_are_looked_at(ranges, images) -> None:
    some = [images[number] for number in np.linspace(0, 99, 64).round().astype(int)]
    found, expected = refined(ranges, images), refined(ranges, some)
    assert quantized(found) == quantized(expected)
    assert quantized(found) != quantized(refined(ranges, images[:64]))


def test_it_is_how_a_model_is_converted(model, ranges, images) -> None:
    assert convert(model, "int8", images) == quantized(refined(ranges, images))
    assert convert(model, "int8", images) != quantized(ranges)
