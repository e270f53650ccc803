from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from kpipe.ensemble import average
from kpipe.errors import ExportError
from kpipe.lite import LiteModel, convert
from kpipe.lite.export import tracing
from tests.lite.conftest import photos, seeded, small_classifier


def test_float_file_equals_keras(model, float_file):
    images = photos(8, seed=1)
    expected = model.predict(images.astype(np.float32), verbose=0)
    np.testing.assert_allclose(LiteModel(float_file).predict(images), expected, atol=1e-5)
    assert len(set(expected.argmax(axis=1))) > 1  # equal predictions would prove little


def test_int8_file_takes_raw_pixels_and_stays_close(model, int8_file):
    opened = LiteModel(int8_file)
    assert opened.input_dtype == np.uint8
    assert opened.input_quantization == (1.0, 0)
    images = photos(32, seed=1)
    expected = model.predict(images.astype(np.float32), verbose=0)
    found = opened.predict(images)
    assert np.abs(found - expected).mean() < 0.02  # a third for unrelated predictions
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.9


def test_int8_output_is_uint8_with_256_steps(int8_file):
    interpreter = Interpreter(model_content=int8_file)
    output = interpreter.get_output_details()[0]
    assert output["dtype"] == np.uint8
    assert output["quantization"] == (1 / 256, 0)


def test_int8_with_float_io_returns_the_same_probabilities(model, int8_file):
    content = convert(model, "int8", photos(16), io_dtype="float32")
    interpreter = Interpreter(model_content=content)
    (pixels,), (scores,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert pixels["dtype"] is scores["dtype"] is np.float32
    kinds = {np.dtype(d["dtype"]).name for d in interpreter.get_tensor_details()}
    assert "int8" in kinds
    images = photos(8, seed=6)
    np.testing.assert_allclose(
        LiteModel(content).predict(images), LiteModel(int8_file).predict(images), atol=1e-6
    )


def test_other_io_dtypes_are_refused(model):
    with pytest.raises(ExportError, match="unknown io_dtype 'int8'"):
        convert(model, "int8", photos(2), io_dtype="int8")


def test_int8_computes_nothing_in_float(int8_file):
    interpreter = Interpreter(model_content=int8_file)
    kinds = {np.dtype(detail["dtype"]).name for detail in interpreter.get_tensor_details()}
    assert kinds <= {"uint8", "int8", "int32"}


@pytest.mark.parametrize("quantize", ["float16", "dynamic", "mixed"])
def test_light_modes_take_floats_and_stay_close(model, float_file, quantize):
    content = convert(model, quantize)
    images = photos(8, seed=2)
    expected = model.predict(images.astype(np.float32), verbose=0)
    assert LiteModel(content).input_dtype == np.float32
    np.testing.assert_allclose(LiteModel(content).predict(images), expected, atol=0.05)
    assert content != float_file


def test_signature_names_image_and_probabilities(float_file):
    interpreter = Interpreter(model_content=float_file)
    signature = {"inputs": ["image"], "outputs": ["probabilities"]}
    assert interpreter.get_signature_list() == {"serving_default": signature}


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_bytes_do_not_depend_on_what_the_process_did_before(quantize):
    calibration = photos(4) if quantize else None
    first = convert(seeded(small_classifier()), quantize, calibration)
    for _ in range(3):
        small_classifier()(np.zeros((1, 32, 32, 3)))
    again = seeded(small_classifier())
    names = [layer.name for layer in again.layers]
    assert convert(again, quantize, calibration) == first
    assert [layer.name for layer in again.layers] == names


# Keras 3.15 saves through an `__array__` that NumPy 2.4 calls deprecated.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_bytes_are_those_of_a_fresh_process(tmp_path):
    model = seeded(small_classifier())
    model.save(tmp_path / "model.keras")
    script = (
        "import hashlib, sys, keras\n"
        "from kpipe.lite import convert\n"
        "from tests.lite.conftest import photos\n"
        "model = keras.models.load_model(sys.argv[1])\n"
        "print(hashlib.sha256(convert(model, 'int8', photos(4))).hexdigest())\n"
    )
    fresh = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "model.keras")],
        env={**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert fresh.stdout.strip() == hashlib.sha256(convert(model, "int8", photos(4))).hexdigest()


def test_other_weights_give_other_bytes(float_file):
    assert convert(seeded(small_classifier(), seed=1)) != float_file


def test_conversion_prints_nothing(model, capfd):
    convert(model, "int8", photos(2))
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_layers_carry_their_names_into_the_file(model, float_file):
    names = " ".join(d["name"] for d in Interpreter(model_content=float_file).get_tensor_details())
    assert "depthwise_conv2d" in names
    assert "batch_normalization_" not in names.replace("batch_normalization_1/", "")


def test_nested_and_sequential_models_convert():
    inner = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Conv2D(4, 3)])
    outer = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            inner,
            keras.layers.GlobalMaxPooling2D(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    images = photos(3, size=16)
    expected = outer.predict(images.astype(np.float32), verbose=0)
    np.testing.assert_allclose(LiteModel(convert(outer)).predict(images), expected, atol=1e-5)


@pytest.mark.slow
def test_mobilenet_converts_in_float_and_int8():
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    base = keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), alpha=0.35, include_top=False, weights=None, pooling="avg"
    )
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(base(x)))
    images = photos(4)
    expected = model.predict(images.astype(np.float32), verbose=0)
    np.testing.assert_allclose(LiteModel(convert(model)).predict(images), expected, atol=1e-5)
    quantized = LiteModel(convert(model, "int8", images))
    np.testing.assert_allclose(quantized.predict(images), expected, atol=0.06)


@pytest.mark.parametrize("wrap", [lambda t: [t], lambda t: {"photo": t}])
def test_inputs_in_a_list_or_dict_convert(wrap):
    tensor = keras.Input((8, 8, 3), name="photo")
    pooled = keras.layers.GlobalAveragePooling2D()(tensor)
    images = photos(2, size=8)
    for outputs in (pooled, wrap(pooled)):
        content = convert(keras.Model(wrap(tensor), outputs))
        np.testing.assert_allclose(
            LiteModel(content).predict(images), images.mean(axis=(1, 2)), rtol=1e-5
        )


def test_unknown_operation_is_named():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Lambda(lambda t: keras.ops.erfinv(t / 256))(inputs)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    with pytest.raises(ExportError, match="does not have: Erfinv"):
        convert(model)


def test_weights_that_are_not_finite_are_named():
    model = seeded(small_classifier())
    kernel = model.layers[-1].kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    bias = model.layers[5].bias
    bias.assign(np.full(bias.shape, np.inf))
    with pytest.raises(ExportError) as caught:
        convert(model)
    assert kernel.path in str(caught.value)
    assert bias.path in str(caught.value)


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (None, "there are none"),
        ([], "there are none"),
        (np.empty((0, 32, 32, 3)), "there are none"),
        (photos(2, size=16), "input size"),
        ([np.full((32, 32, 3), 300.0)], "range of pixels"),
        ([np.full((32, 32, 3), np.nan)], "range of pixels"),
        ([(photos(1), np.zeros(1))], "leave out the labels"),
    ],
)
def test_int8_refuses_unusable_calibration(model, calibration, message):
    with pytest.raises(ExportError, match=message):
        convert(model, "int8", calibration)


def test_calibration_may_come_as_batches_images_or_a_generator(model, int8_file):
    images = photos(16)
    assert convert(model, "int8", list(images)) == int8_file
    assert convert(model, "int8", (images[i : i + 4].astype(float) for i in range(0, 16, 4))) == (
        int8_file
    )


def test_calibration_images_do_not_change(model):
    images = photos(2).astype(np.float32)
    before = images.copy()
    convert(model, "int8", images)
    np.testing.assert_array_equal(images, before)


def test_unknown_mode_suggests_the_nearest(model):
    with pytest.raises(ExportError, match="did you mean 'int8'"):
        convert(model, "int-8")


def test_free_image_size_is_refused():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    with pytest.raises(ExportError, match="all sizes fixed"):
        convert(model)


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_large_models_convert_without_constants_to_the_same_outputs(model, monkeypatch, quantize):
    calibration = photos(16) if quantize else None
    expected = convert(model, quantize, calibration)
    monkeypatch.setattr(tracing, "_LARGE", 0)
    found = convert(model, quantize, calibration)
    assert found != expected  # the weights are no constants of the graph
    images = photos(8, seed=3)
    np.testing.assert_array_equal(
        LiteModel(found).predict(images), LiteModel(expected).predict(images)
    )
    assert convert(model, quantize, calibration) == found


def test_layers_of_half_precision_are_named():
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(2, 3, dtype="mixed_float16", name="half")(inputs)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="top")(x))
    with pytest.raises(ExportError, match="half precision: half") as caught:
        convert(model)
    assert "top" not in str(caught.value)


@pytest.mark.parametrize("thing", ["model.keras", keras.Sequential([keras.layers.Dense(2)])])
def test_models_that_are_not_built_are_refused(thing):
    with pytest.raises(ExportError, match="only a built Keras 3 model"):
        convert(thing)


def test_an_int8_ensemble_returns_256_times_the_probability(model):
    ensemble = average([model, seeded(small_classifier(), 1)])
    content, images = convert(ensemble, "int8", photos(16)), photos(8, seed=1)
    (scores,) = Interpreter(model_content=content).get_output_details()
    assert scores["quantization"] == (1 / 256, 0)
    expected = ensemble.predict(images.astype(np.float32), verbose=0)
    opened = LiteModel(content)
    raw = np.concatenate([opened.invoke(image[None]).copy() for image in images])
    assert np.abs(raw / 256 - expected).max() < 0.1
    assert content == convert(ensemble, "int8", photos(16))


def test_outputs_that_are_not_probabilities_keep_their_scale(model):
    logits = keras.Model(model.input, 30 * model.layers[-2].output - 10)
    opened, images = LiteModel(convert(logits, "int8", photos(16))), photos(8, seed=1)
    expected = logits.predict(images.astype(np.float32), verbose=0)
    assert expected.min() < 0 and expected.max() > 1
    assert np.abs(opened.predict(images) - expected).max() < 0.1 * np.ptp(expected)


@pytest.mark.parametrize("cell", [keras.layers.LSTM, keras.layers.GRU])
def test_int8_refuses_loops_but_takes_them_unrolled(cell):
    """The converter would abort the process."""

    def recurrent(**kwargs):
        inputs = keras.Input((8, 8, 3))
        x = cell(4, **kwargs)(keras.layers.Reshape((8, 24))(inputs))
        return keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x))

    with pytest.raises(ExportError, match="unroll=True"):
        convert(recurrent(), "int8", photos(4, 8))
    LiteModel(convert(recurrent(unroll=True), "int8", photos(4, 8)))


def test_a_file_that_litert_cannot_run_is_refused():
    inputs = keras.Input((8, 8, 3))
    six = keras.layers.Dense(6)(keras.layers.Flatten()(inputs))
    real, _ = keras.ops.rfft(six)  # LiteRT supports lengths that are powers of two alone
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(real))
    with pytest.raises(ExportError, match="LiteRT"):
        convert(model)


@pytest.mark.parametrize("calibration", ["photo.jpg", ["photo.jpg"], [object()]])
def test_calibration_without_images_is_refused(model, calibration):
    with pytest.raises(ExportError, match="calibration"):
        convert(model, "int8", calibration)
