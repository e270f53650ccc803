from __future__ import annotations

import io
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kpipe.errors import DataError, ExportError
from kpipe.lite import Classifier, LiteModel, add_metadata
from tests.lite.conftest import photos


@pytest.fixture
def path(float_file, tmp_path):
    (tmp_path / "model.tflite").write_bytes(float_file)
    (tmp_path / "labels.txt").write_text("ant\nbee\ncrab\n", encoding="utf-8")
    return tmp_path / "model.tflite"


def test_labels_are_read_beside_the_file_in_output_order(path, float_file):
    images = photos(4)
    rows = LiteModel(float_file).predict(images)
    for found, row in zip(Classifier(path).predict(images), rows, strict=True):
        assert found.label == ["ant", "bee", "crab"][row.argmax()]
        assert found.probability == row.max()
        assert found.probabilities == dict(zip(["ant", "bee", "crab"], row.tolist(), strict=True))


def test_paths_arrays_and_pil_images_give_the_same_prediction(path, tmp_path):
    array = photos(1)[0]
    Image.fromarray(array).save(tmp_path / "photo.png")
    found = Classifier(path).predict(
        [tmp_path / "photo.png", str(tmp_path / "photo.png"), array, Image.fromarray(array)]
    )
    assert len(found) == 4
    assert all(one == found[0] for one in found)
    assert Classifier(path).predict(array) == found[:1]
    assert Classifier(path).predict(tmp_path / "photo.png") == found[:1]


def test_exif_orientation_is_undone(path, tmp_path):
    array = photos(1)[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # stored rotated: turn it by 270 degrees to view it
    Image.fromarray(np.rot90(array)).save(tmp_path / "turned.png", exif=exif)
    classifier = Classifier(path)
    expected = classifier.predict(array)
    assert classifier.predict(tmp_path / "turned.png") == expected
    with Image.open(tmp_path / "turned.png") as opened:
        assert classifier.predict(opened) == expected
    assert classifier.predict(np.rot90(array)) != expected


def test_wide_photos_are_cropped_at_the_center_not_squeezed(path):
    square = photos(1)[0]
    wide = np.pad(square, ((0, 0), (20, 20), (0, 0)))
    classifier = Classifier(path)
    assert classifier.predict(wide) == classifier.predict(square)


def _grey(image):
    return image.convert("L")


def _deep_grey(image):
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 200)


def _half_transparent(image):
    image.putalpha(image.convert("L"))
    return image


@pytest.mark.parametrize("change", [_grey, _deep_grey, _half_transparent, Image.Image.copy])
@pytest.mark.parametrize("size", [(32, 32), (97, 50), (20, 41), (300, 301), (800, 700)])
@pytest.mark.parametrize("background", ["white", "#102030"])
def test_photos_are_read_exactly_as_for_training(path, tmp_path, change, size, background):
    from kpipe.data import load_image

    photo = tmp_path / "photo.png"
    change(Image.fromarray(photos(1, size=100)[0]).resize(size)).save(photo)
    classifier = Classifier(path, background=background)
    row = classifier.model.predict(load_image(photo, 32, background)[None])[0]
    assert list(classifier.predict(photo)[0].probabilities.values()) == row.tolist()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpegs_are_read_exactly_as_they_are_decoded_for_training(path, tmp_path, orientation):
    from kpipe.data import decode, from_folder

    exif = Image.Exif()
    exif[0x0112] = orientation
    for place, label in enumerate("aabb"):
        (tmp_path / "photos" / label).mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(photos(4, size=100)[place]).resize((90 + 70 * place, 75))
        image.save(tmp_path / "photos" / label / f"{place}.jpg", exif=exif)
    manifest = from_folder(tmp_path / "photos")
    images = decode(manifest, 32, tmp_path / "out")
    classifier = Classifier(path)
    rows = classifier.model.predict(images)
    found = classifier.predict(manifest.table["path"])
    assert [list(one.probabilities.values()) for one in found] == rows.tolist()


def test_an_unknown_background_color_is_refused(path):
    with pytest.raises(DataError, match="did you mean 'white'"):
        Classifier(path, background="wite")


def test_every_unreadable_image_is_named(path, tmp_path):
    (tmp_path / "text.jpg").write_text("not a photo")
    floats = np.zeros((32, 32, 3))
    with pytest.raises(DataError) as caught:
        Classifier(path).predict(
            [tmp_path / "none.jpg", photos(1)[0], tmp_path / "text.jpg", floats]
        )
    message = str(caught.value)
    assert "none.jpg" in message
    assert "text.jpg (undecodable: the content is not JPEG" in message
    assert "#3 (float64 array" in message


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "b"], "2 labels"),
        (["a", "a", "b"], "'a' more than once"),
        (["a", " ", "b"], r"lines 1 \(from 0\) are empty"),
    ],
)
def test_labels_that_do_not_match_are_refused(path, labels, message):
    with pytest.raises(ExportError, match=message):
        Classifier(path, labels)


def test_without_labels_beside_the_file_those_inside_are_used(path, float_file):
    path.write_bytes(add_metadata(float_file, ["x", "y", "z"]))
    assert Classifier(path).labels == ["ant", "bee", "crab"]
    path.with_name("labels.txt").unlink()
    assert Classifier(path).labels == ["x", "y", "z"]


def test_missing_labels_file_is_named(path):
    path.with_name("labels.txt").unlink()
    with pytest.raises(ExportError, match=r"labels\.txt"):
        Classifier(path)


def test_classifying_loads_neither_tensorflow_nor_keras(path):
    script = (
        "import sys, numpy as np\n"
        "from kpipe.lite import Classifier, add_metadata, benchmark, evaluate, latency\n"
        "image = np.zeros((1, 32, 32, 3), np.uint8)\n"
        "Classifier(sys.argv[1]).predict(image)\n"
        "evaluate(sys.argv[1], (image, np.zeros(1, int)))\n"
        "latency(sys.argv[1], runs=1)\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(loaded & {'tensorflow', 'keras', 'tf_keras', 'sklearn', 'pandas'}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_a_byte_order_mark_is_not_part_of_the_first_label(path):
    (path.parent / "labels.txt").write_text("ant\nbee\ncrab\n", encoding="utf-8-sig")
    assert Classifier(path).labels == ["ant", "bee", "crab"]


@pytest.mark.parametrize("shape", [(0, 30, 3), (40, 0, 3)])
def test_a_photo_without_pixels_is_refused(path, shape):
    with pytest.raises(DataError, match="cannot be read"):
        Classifier(path).predict(np.zeros(shape, "uint8"))


def test_a_tensor_is_one_photo(path):
    array = photos(1)[0]
    assert Classifier(path).predict(tf.constant(array)) == Classifier(path).predict(array)


def test_errors_about_other_objects_are_short(path):
    content = (path.parent / "labels.txt").read_bytes()
    for images in (content, io.BytesIO(content), tf.zeros((30, 30, 3))):
        with pytest.raises(DataError) as caught:
            Classifier(path).predict(images)
        assert len(str(caught.value)) < 300


def test_a_prediction_below_the_threshold_of_the_file_is_not_sure(int8_file, tmp_path):
    images = photos(8)
    tops = LiteModel(int8_file).predict(images).max(axis=1)
    threshold = float((np.sort(tops)[3] + np.sort(tops)[4]) / 2)
    path = tmp_path / "model.tflite"
    path.write_bytes(add_metadata(int8_file, ["ant", "bee", "crab"], score_threshold=threshold))
    classifier = Classifier(path)
    assert classifier.threshold == pytest.approx(threshold)
    found = classifier.predict(images)
    assert [one.sure for one in found] == (tops > threshold).tolist()
    assert {one.label for one in found} <= {"ant", "bee", "crab"}  # shown in any case
    assert all(one.sure for one in Classifier(path, threshold=0.0).predict(images))
    assert not any(one.sure for one in Classifier(path, threshold=1.0).predict(images))


def test_a_file_without_a_threshold_is_always_sure(path):
    classifier = Classifier(path)
    assert classifier.threshold is None
    assert all(one.sure for one in classifier.predict(photos(8)))
    with pytest.raises(ExportError, match=r"invalid threshold[^\0]*threshold=1\.5"):
        Classifier(path, threshold=1.5)
