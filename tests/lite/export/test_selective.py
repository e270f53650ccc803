from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest

from kpipe.errors import ExportError
from kpipe.lite import LiteModel, quantize_selectively
from kpipe.lite.export.layer_names import find_layer
from kpipe.lite.export.selective import _doubling
from kpipe.paired_loss import PairedLoss
from tests.lite.conftest import photos, seeded, small_classifier


def two_ranges() -> keras.Model:
    """Return a model in which one channel of a layer is a thousand times larger than the others."""
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="preprocessing")(inputs)
    x = keras.layers.Conv2D(4, 3, activation="relu", name="stem")(x)
    wide = keras.layers.Conv2D(4, 1, name="wide")
    narrow = keras.layers.Conv2D(4, 1, name="narrow")
    x = keras.layers.Conv2D(4, 3, activation="relu", name="last")(narrow(wide(x)))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="top")(x))
    seeded(model, 3)
    scales = np.array([3000.0, 1.0, 1.0, 1.0])
    wide.kernel.assign(np.eye(4)[None, None] * scales)
    wide.bias.assign(np.zeros(4))
    narrow.kernel.assign(np.eye(4)[None, None] / scales[:, None])
    narrow.bias.assign(np.zeros(4))
    return model


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return photos(48, seed=4)


class Near:
    """Whether a file is near the model on each image; keeps the files."""

    def __init__(self, model: keras.Model, images: np.ndarray, distance: float) -> None:
        self.images, self.distance = images, distance
        self.expected = model.predict(images.astype("float32"), verbose=0)
        self.files: list[bytes] = []

    def __call__(self, content: bytes) -> np.ndarray:
        self.files.append(content)
        differences = np.abs(LiteModel(content).predict(self.images) - self.expected)
        return differences.max(axis=1) < self.distance


def scored(*counts: int, images: int = 100) -> Callable[[bytes], np.ndarray]:
    """Return a function that counts the first images as correct, as many as listed."""
    left = iter(counts)
    return lambda content: np.arange(images) < next(left)


def test_plain_int8_within_the_tolerance_is_chosen(model, images):
    near = Near(model, images, 0.2)
    found = quantize_selectively(model, [images], near)
    assert found.meets_tolerance and found.in_float == () and len(found.trials) == 1
    assert found.content == near.files[-1]
    assert LiteModel(found.content).input_quantization == (1.0, 0)


def test_the_layers_that_lose_most_stay_in_float(images):
    model = two_ranges()
    near = Near(model, images, 0.02)
    found = quantize_selectively(model, [images], near)
    assert found.trials[0].accuracy < 0.95
    assert found.meets_tolerance and found.trials[-1].loss == found.loss
    assert found.loss.acceptable(0.01)
    assert {"wide", "narrow"} <= set(found.in_float)
    assert "top" not in found.in_float
    opened = LiteModel(found.content)
    assert opened.input_dtype == np.uint8 and opened.input_quantization == (1.0, 0)
    assert found.content == near.files[-1]


@pytest.mark.parametrize("names", [("good", "bad"), ("net", "net_1"), ("net_1", "net")])
def test_layers_of_one_name_in_nested_models_are_distinguished(images, names):
    good, bad = (keras.models.clone_model(two_ranges()) for _ in range(2))
    seeded(good, 5)
    bad.set_weights(two_ranges().get_weights())
    good.name, bad.name = names
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, keras.layers.Average(name="mean")([good(inputs), bad(inputs)]))
    found = quantize_selectively(model, [images], Near(model, images, 0.02))
    assert {f"{bad.name}/wide", f"{bad.name}/narrow"} <= set(found.in_float)
    assert not any(name.startswith(f"{good.name}/") for name in found.in_float)


def test_a_layer_without_a_kernel_in_a_nested_model_is_found():
    members = [two_ranges(), two_ranges()]
    members[0].name, members[1].name = "one", "two"
    inputs = keras.Input((32, 32, 3))
    outputs = [member(inputs) for member in members]
    model = keras.Model(inputs, keras.layers.Average(name="mean")(outputs))
    assert find_layer(model, "net_1/two_1/pool_1/Mean") == "two/pool"


def test_without_a_file_within_the_tolerance_the_best_is_chosen(model, images):
    correct = scored(90, 50, 60, 80, 70)
    files: list[bytes] = []

    def counted(content: bytes) -> np.ndarray:
        files.append(content)
        return correct(content)

    found = quantize_selectively(model, [images], counted, max_float_ops=4)
    assert not found.meets_tolerance
    assert [trial.accuracy for trial in found.trials] == [0.5, 0.6, 0.8, 0.7][: len(found.trials)]
    assert found.content == files[1 + np.argmax([trial.accuracy for trial in found.trials])]
    assert found.in_float == max(found.trials, key=lambda trial: trial.accuracy).in_float


@pytest.mark.parametrize(("lost", "tried"), [(1, 1), (4, 1), (5, 2)])
def test_a_loss_that_chance_explains_keeps_plain_int8(model, images, lost, tried):
    # 4 lost and none won: p = 0.06. With 40 images, each is beyond the tolerance.
    found = quantize_selectively(model, [images], scored(36, 36 - lost, 36, images=40))
    assert len(found.trials) == tried and found.meets_tolerance
    assert found.trials[0].loss == PairedLoss(photos=40, lost=lost, won=0)


@pytest.mark.parametrize(
    "correct",
    [lambda content: 0.9, lambda content: np.zeros(3), lambda content: np.zeros((2, 2), bool)],
)
def test_what_is_no_boolean_for_each_image_is_refused(model, images, correct):
    with pytest.raises(ExportError, match="boolean for each image") as caught:
        quantize_selectively(model, [images], correct)
    assert "evaluate(content, data).correct" in str(caught.value)


def test_same_bytes_every_time(images):
    model = two_ranges()
    one, other = (
        quantize_selectively(model, [images], Near(model, images, 0.02)) for _ in range(2)
    )
    assert one.content == other.content


def test_an_invalid_tolerance_is_refused():
    with pytest.raises(ExportError, match="tolerance"):
        quantize_selectively(small_classifier(), [photos(2)], scored(1), tolerance=2)


@pytest.mark.parametrize(
    ("max_float_ops", "counts"), [(0, []), (1, [1]), (4, [1, 2, 4]), (6, [1, 2, 4, 6])]
)
def test_counts_double(max_float_ops, counts):
    assert _doubling(max_float_ops) == counts
