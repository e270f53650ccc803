from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from ai_edge_litert.tools import flatbuffer_utils

from kpipe.lite import convert
from kpipe.lite.export.calibration_images import prepare_calibration_images
from kpipe.lite.export.conversion import calibrate
from kpipe.lite.int8.biases import measure_mean_errors
from kpipe.lite.int8.calibrated_model import CalibratedModel
from kpipe.lite.int8.quantizing import quantize_to_int8, refine
from kpipe.lite.int8.ranges import fit_ranges
from tests.lite.conftest import photos


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return prepare_calibration_images([photos(100)], (32, 32, 3))


@pytest.fixture(scope="module")
def calibrated(model, images) -> CalibratedModel:
    return calibrate(model, images)


def test_mean_errors_are_measured_with_the_fitted_ranges(calibrated, images) -> None:
    found = refine(calibrated, images[:20])
    assert found.content == fit_ranges(calibrated, images[:20]).content != calibrated.content
    expected = measure_mean_errors(found, images[:20])
    assert found.mean_errors.keys() == expected.keys()
    for output, error in expected.items():
        np.testing.assert_array_equal(found.mean_errors[output], error)


def test_a_sample_is_spread_over_many_images(calibrated, images) -> None:
    some = [images[number] for number in np.linspace(0, 99, 64).round().astype(int)]
    found = quantize_to_int8(refine(calibrated, images))
    assert found == quantize_to_int8(refine(calibrated, some))
    assert found != quantize_to_int8(refine(calibrated, images[:64]))


def test_conversion_refines_the_ranges(model, calibrated, images) -> None:
    assert convert(model, "int8", images) == quantize_to_int8(refine(calibrated, images))
    assert convert(model, "int8", images) != quantize_to_int8(calibrated)


def test_a_file_is_parsed_and_serialized_only_where_bytes_are_needed(
    model, images, monkeypatch
) -> None:
    calls = Counter()

    def counted(name):
        function = getattr(flatbuffer_utils, name)

        def call(*arguments):
            calls[name] += 1
            return function(*arguments)

        return call

    for name in ("read_model_from_bytearray", "convert_object_to_bytearray"):
        monkeypatch.setattr(flatbuffer_utils, name, counted(name))
    convert(model, "int8", images[:8])
    # Parsed: the files of the converter and of the quantizer. Serialized: the model with its ranges
    # for verification, with its biases for the quantizer, and the int8 file.
    assert calls == {"read_model_from_bytearray": 2, "convert_object_to_bytearray": 3}
