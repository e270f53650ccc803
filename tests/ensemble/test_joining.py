"""Members of other image sizes and other orders of classes, against their own predictions."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from kpipe.ensemble import average, geometric_average, predict_members, vote
from kpipe.errors import TrainingError
from kpipe.lite import convert
from tests.ensemble.test_combination import dense, member, unit

CLASSES = ("ant", "bee", "cat", "dog")


def images(size: int, count: int = 6) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.uniform(0, 255, (count, size, size, 3)).astype("float32")


def resized(photos: np.ndarray, size: int) -> np.ndarray:
    """The same photos, as the module's docstring defines it."""
    block = photos.shape[1] // size
    means = tf.nn.avg_pool2d(photos, block, block, "SAME")
    return tf.image.resize(means, (size, size)).numpy()


def run(content: bytes, photos: np.ndarray) -> np.ndarray:
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    rows = []
    for photo in photos:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], photo[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    return np.array(rows)


def test_the_file_of_an_ensemble_is_the_average_of_the_files_of_its_members() -> None:
    members = [member(0, size=24), member(1, size=24), member(2, size=16), member(3, size=9)]
    photos = images(24)
    own = [run(convert(model), resized(photos, model.input_shape[1])) for model in members]
    got = run(convert(average(members)), photos)
    np.testing.assert_allclose(got, np.mean(own, axis=0), atol=1e-5)


@pytest.mark.parametrize("combine", [average, geometric_average, vote])
def test_members_of_other_sizes_see_the_same_photo(combine, tmp_path) -> None:
    members, photos = [member(0, size=24), member(1, size=12)], images(24)
    same = [member(0, size=24), keras.Sequential([keras.Input((24, 24, 3)), *_shrunk(members[1])])]
    expected = combine(same)(photos)
    ensemble = combine(members)
    np.testing.assert_allclose(ensemble(photos), expected, atol=1e-6)
    ensemble.save(tmp_path / "ensemble.keras")
    loaded = keras.models.load_model(tmp_path / "ensemble.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded(photos), ensemble(photos))


def _shrunk(model: keras.Model) -> list[keras.layers.Layer]:
    return [keras.layers.AveragePooling2D(2), model]


def test_the_photo_has_the_size_of_the_largest_member() -> None:
    assert average([member(0, size=12), member(1, size=24)]).input_shape == (None, 24, 24, 3)
    any_size = keras.Input((None, None, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(any_size)
    free = keras.Model(any_size, keras.layers.Dense(4, "softmax")(pooled))
    assert average([free, member(1)]).input_shape == (None, 8, 8, 3)
    assert average([free, free]).input_shape == (None, None, None, 3)


def test_whole_numbers_stay_whole_numbers() -> None:
    def shown(size: int) -> keras.Model:
        pixels = keras.Input((size, size, 3), dtype="uint8")
        first = keras.layers.Rescaling(1 / 255)(pixels)
        return keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(first))

    photos = images(8).astype("uint8")
    one, other = shown(8), shown(6)
    smaller = np.round(resized(photos.astype("float32"), 6)).astype("uint8")
    expected = (one(photos) + other(smaller)) / 2
    np.testing.assert_allclose(average([one, other])(photos), expected, atol=1e-6)


def test_photos_are_not_squeezed() -> None:
    def shown(height: int, width: int) -> keras.Model:
        pixels = keras.Input((height, width, 3))
        return keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(pixels))

    assert average([shown(8, 16), shown(4, 8)]).input_shape == (None, 8, 16, 3)
    with pytest.raises(TrainingError, match="proportions"):
        average([shown(8, 8), shown(8, 16)])


@pytest.mark.parametrize("combine", [average, geometric_average, vote])
def test_classes_are_matched_by_name(combine) -> None:
    one, other = member(0), member(1)
    order = [2, 0, 3, 1]
    shuffled = keras.Model(other.inputs, keras.ops.take(other.outputs[0], order, axis=-1))
    names = [CLASSES, [CLASSES[place] for place in order]]
    got = combine([one, shuffled], classes=names)
    np.testing.assert_allclose(got(images(8)), combine([one, other])(images(8)), atol=1e-6)


def test_other_classes_are_refused_by_name() -> None:
    members = [member(0), member(1)]
    with pytest.raises(TrainingError, match=r"(?s)member 2.*without 'dog', but with 'eel'"):
        average(members, classes=[CLASSES, ("ant", "bee", "cat", "eel")])
    for wrong in ([CLASSES], [CLASSES, CLASSES[:3]], [CLASSES, ("ant", "ant", "cat", "dog")]):
        with pytest.raises(TrainingError, match="4 different names"):
            average(members, classes=wrong)


def test_a_geometric_average_is_the_normalized_product() -> None:
    members, photos = [member(seed) for seed in range(3)], images(8)
    weights = np.array([0.5, 0.0, 1.5]) / 2
    each = np.stack([model(photos).numpy() for model in members]).astype(float)
    product = np.prod(np.maximum(each, 1e-7) ** weights[:, None, None], axis=0)
    expected = product / product.sum(axis=1, keepdims=True)
    got = geometric_average(members, [1, 0, 3])
    np.testing.assert_allclose(got(photos), expected, atol=1e-6)
    np.testing.assert_allclose(run(convert(got), photos), got(photos), atol=1e-5)


def test_a_geometric_average_is_finite_where_a_member_is_certain() -> None:
    certain = [dense(3, "softmax", bias) for bias in ([200.0, 0.0, 0.0], [0.0, 200.0, 0.0])]
    np.testing.assert_allclose(
        geometric_average(certain)(np.zeros((1, 4))), [[0.5, 0.5, 0]], atol=1e-3
    )
    ones = geometric_average([dense(1, "sigmoid", [200.0]), unit(0.5)])(np.zeros((1, 4)))
    assert 0.99 < float(ones[0, 0]) <= 1


def test_a_geometric_average_of_one_unit_is_that_of_two_classes() -> None:
    got = geometric_average([unit(0.9), unit(0.2)])(np.zeros((1, 4)))
    odds = np.sqrt(0.9 / 0.1 * 0.2 / 0.8)
    np.testing.assert_allclose(got, [[odds / (1 + odds)]], atol=1e-6)


@pytest.mark.parametrize("kind", ["logits", "several labels", "NaN", "regression"])
def test_what_has_no_geometric_average_is_refused(kind: str) -> None:
    bad = {
        "logits": dense(3, None, [1.0, 2.0, 3.0]),
        "several labels": dense(3, "sigmoid", [2.0, 2.0, 2.0]),
        "NaN": dense(3, "softmax", [np.nan, 0.0, 0.0]),
        "regression": dense(1, None, [3.5]),
    }[kind]
    with pytest.raises(TrainingError, match="no geometric average"):
        geometric_average([bad, bad])


def test_a_member_of_nan_is_named() -> None:
    with pytest.raises(TrainingError, match=r"member 2 of the ensemble.*NaN"):
        average([unit(0.2), dense(1, "sigmoid", [np.nan])])


def test_kinds_of_output_are_not_mixed() -> None:
    with pytest.raises(TrainingError, match=r"(?s)kind of output.*sigmoid.*softmax"):
        average([dense(3, "sigmoid", [0.0] * 3), dense(3, "softmax", [0.0] * 3)])


def test_predictions_of_members_are_those_of_each_in_the_order_of_the_data() -> None:
    members, photos = [member(0, size=24), member(1, size=12)], images(24, 7)
    labels = np.arange(7) % 4
    data = tf.data.Dataset.from_tensor_slices((photos, labels)).batch(3)
    found, truth = predict_members(members, data)
    expected = np.stack([members[0](photos), members[1](resized(photos, 12))])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert truth.tolist() == labels.tolist()
    smaller = data.map(lambda x, y: (x[:, :12, :12], y))
    for wrong in (data.map(lambda x, y: x), data.take(0), smaller):
        with pytest.raises(TrainingError, match="data="):
            predict_members(members, wrong)
