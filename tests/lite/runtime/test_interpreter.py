from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from kpipe.errors import ExportError
from kpipe.lite import LiteModel, convert
from tests.lite.conftest import photos


def test_file_and_bytes_give_the_same_probabilities(float_file, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(float_file)
    images = photos(3)
    np.testing.assert_array_equal(
        LiteModel(path, threads=2).predict(images), LiteModel(float_file).predict(images)
    )
    for content in (bytearray(float_file), memoryview(float_file)):
        assert LiteModel(content).content == float_file
    assert LiteModel(str(path)).image_size == (32, 32)
    assert LiteModel(path).classes == 3


def test_float_and_uint8_pixels_give_the_same_probabilities(float_file, int8_file):
    images = photos(3)
    for content in (float_file, int8_file):
        model = LiteModel(content)
        np.testing.assert_array_equal(model.predict(images), model.predict(images.astype(float)))


def test_int8_probabilities_are_dequantized_outputs(int8_file):
    model = LiteModel(int8_file)
    images = photos(3)
    raw = np.concatenate([model.invoke(image[None]).copy() for image in images])
    assert raw.dtype == np.uint8
    np.testing.assert_array_equal(model.predict(images), raw.astype(np.float32) / 256)


def test_earlier_probabilities_do_not_change_when_the_model_runs_again(float_file):
    model = LiteModel(float_file)
    first = model.predict(photos(2))
    kept = first.copy()
    model.predict(photos(2, seed=5))
    np.testing.assert_array_equal(first, kept)


def test_no_images_give_no_rows(float_file):
    assert LiteModel(float_file).predict(np.empty((0, 32, 32, 3), np.uint8)).shape == (0, 3)


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.5, 0.9999])
def test_truncated_files_are_refused(float_file, fraction, tmp_path):
    path = tmp_path / "cut.tflite"
    path.write_bytes(float_file[: int(len(float_file) * fraction)])
    with pytest.raises(ExportError, match=r"cut\.tflite"):
        LiteModel(path)


def test_foreign_files_are_refused():
    with pytest.raises(ExportError, match="LiteRT says"):
        LiteModel(b"PK\x03\x04" + bytes(1000))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ExportError, match=r"nowhere\.tflite"):
        LiteModel(tmp_path / "nowhere.tflite")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (photos(1)[0], "wrong shape"),
        (photos(1, size=16), "wrong shape"),
        (np.full((1, 32, 32, 3), -1.0), "range of pixels"),
        (np.full((1, 32, 32, 3), np.nan), "range of pixels"),
    ],
)
def test_images_that_do_not_fit_are_refused(float_file, images, message):
    with pytest.raises(ExportError, match=message):
        LiteModel(float_file).predict(images)


def test_loading_prints_nothing(float_file, capfd):
    LiteModel(float_file).predict(photos(1))
    assert capfd.readouterr().err == ""


def foreign(model: keras.Model) -> bytes:
    """Convert a model with TensorFlow alone."""
    return tf.lite.TFLiteConverter.from_keras_model(model).convert()


def whole(kind: str) -> keras.Model:
    """Return a model with integer input that is not quantized."""
    image = keras.Input((8, 8, 3), dtype=kind)
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
    return keras.Model(image, keras.layers.Dense(3, activation="softmax")(x))


@pytest.mark.parametrize("kind", ["uint8", "int32"])
def test_integer_pixels_that_are_not_quantized_are_passed_as_they_are(kind):
    model, images = whole(kind), photos(4, 8)
    expected = model.predict(images.astype(kind), verbose=0)
    for pixels in (images, images.astype("float32")):
        np.testing.assert_allclose(LiteModel(foreign(model)).predict(pixels), expected, atol=1e-5)


def test_integer_outputs_are_returned_as_they_are():
    image = keras.Input((8, 8, 3))
    sums = keras.layers.Dense(3)(keras.layers.Flatten()(image))
    model, images = keras.Model(image, keras.ops.cast(sums, "int32")), photos(4, 8)
    expected = model.predict(images.astype("float32"), verbose=0)
    assert np.ptp(expected) > 10
    np.testing.assert_allclose(LiteModel(convert(model)).predict(images), expected, atol=1)


def test_an_open_size_is_refused():
    image = keras.Input((None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 1)(image))
    with pytest.raises(ExportError, match="open size"):
        LiteModel(foreign(keras.Model(image, x)))


@pytest.mark.parametrize("threads", [0, 100_000])
def test_invalid_threads_are_refused(float_file, threads):
    with pytest.raises(ExportError, match="threads"):
        LiteModel(float_file, threads)
