from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest

from kpipe.lite.export.calibration_images import prepare_calibration_images
from kpipe.lite.export.conversion import calibrate
from kpipe.lite.int8.biases import _significant_mean, correct_biases, measure_mean_errors
from kpipe.lite.int8.calibrated_model import CalibratedModel
from kpipe.lite.int8.quantizing import quantize_to_int8
from kpipe.lite.runtime.interpreter import LiteModel
from kpipe.lite.tflite_file import parse
from tests.lite.conftest import photos


def network() -> keras.Model:
    """Return a model of logits with kernels that int8 cannot represent, in each kind of layer."""
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(
        keras.layers.Rescaling(1 / 255, name="scale")(inputs)
    )
    x = keras.layers.DepthwiseConv2D(3, use_bias=False, name="depthwise")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, keras.layers.Dense(3, name="top")(x))
    random = np.random.default_rng(0)
    for weight in model.weights:
        # Small weights beside a large one are rounded most, all in the same direction.
        values = np.full(weight.shape, 0.0014) if weight.path.endswith("kernel") else 0.1
        weight.assign(values * np.ones(weight.shape))
    for name in ("conv", "depthwise"):
        kernel = model.get_layer(name).kernel.numpy()
        kernel[1, 1] = random.uniform(0.5, 1, kernel[1, 1].shape)
        model.get_layer(name).kernel.assign(kernel)
    model.get_layer("top").kernel.assign(random.uniform(-1, 1, (4, 3)))
    return model


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return prepare_calibration_images([photos(24)], (32, 32, 3))


@pytest.fixture(scope="module")
def plain(images) -> CalibratedModel:
    return calibrate(network(), images)


@pytest.fixture(scope="module")
def measured(plain, images) -> CalibratedModel:
    return replace(plain, mean_errors=measure_mean_errors(plain, images))


def biases(content: bytes) -> dict[str, np.ndarray]:
    """Map the output of each operation with a bias to the bias."""
    model = parse(content)
    graph = model.subgraphs[0]
    found = {}
    for operation in graph.operators:
        if len(operation.inputs) == 3:
            data = model.buffers[graph.tensors[operation.inputs[2]].buffer].data
            result = graph.tensors[operation.outputs[0]].name.decode()
            found[result] = np.frombuffer(bytes(data), np.float32)
    return found


def test_each_bias_is_less_by_the_mean_error_of_its_channel(measured) -> None:
    before, after = biases(measured.content), biases(correct_biases(measured))
    errors = measured.mean_errors
    assert len(before) == 3 and before.keys() <= errors.keys()
    for result, bias in before.items():
        np.testing.assert_allclose(after[result], bias - errors[result], rtol=1e-6, atol=1e-9)
    (depthwise,) = (name for name in before if "depthwise" in name)
    assert np.abs(errors[depthwise]).min() > 0.01


def test_an_operation_that_stays_in_float_keeps_its_bias(measured) -> None:
    before = biases(measured.content)
    first, kept, top = before
    after = biases(correct_biases(measured, in_float=[kept]))
    np.testing.assert_array_equal(after[kept], before[kept])
    for other in (first, top):
        assert not np.array_equal(after[other], before[other])


def test_operations_that_share_a_bias_are_corrected_separately(images) -> None:
    inputs = keras.Input((32, 32, 3))
    rescaled = keras.layers.Rescaling(1 / 255)(inputs)
    both = [keras.layers.Conv2D(3, 1, name=name)(rescaled) for name in ("one", "other")]
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Concatenate()(both))
    model = calibrate(keras.Model(inputs, x), images)
    errors = {name: np.full(3, number) for number, name in enumerate(biases(model.content), 1)}
    after = biases(correct_biases(replace(model, mean_errors=errors)))
    assert [*map(float, np.concatenate([*after.values()]))] == [-1.0] * 3 + [-2.0] * 3


def test_a_mean_that_varies_between_images_counts_as_0() -> None:
    steady, varying = np.tile([0.9, 1.1], 8), np.tile([-1.0, 1.1], 8)
    np.testing.assert_allclose(_significant_mean(np.stack([steady, varying], axis=1)), [1.0, 0.0])


def test_a_few_images_correct_nothing(plain, images, measured) -> None:
    assert all(not error.any() for error in measure_mean_errors(plain, images[:7]).values())
    assert any(error.any() for error in measured.mean_errors.values())


def test_the_mean_error_of_the_outputs_shrinks(plain, measured) -> None:
    model, others = network(), photos(64, seed=1)
    exact = model.predict(others.astype("float32"), verbose=0)
    off = [
        np.abs((LiteModel(quantize_to_int8(form)).predict(others) - exact).mean(axis=0))
        for form in (plain, measured)
    ]
    assert off[1].max() < off[0].max() / 3


def test_operations_that_only_pass_values_on_have_no_error(images) -> None:
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu", name="first")(inputs)
    x = keras.layers.Conv2D(8, 3, activation="relu", name="second")(keras.layers.MaxPooling2D()(x))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.MaxPooling2D()(x))
    model = calibrate(keras.Model(inputs, x), images)
    found = measure_mean_errors(model, images)
    for result, bias in biases(model.content).items():
        assert found[result].shape == bias.shape
    assert not any("dequantize" in result for result in found)
