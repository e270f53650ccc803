from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from kpipe.errors import DataError, ExportError
from kpipe.lite import Classifier, LiteModel

from .conftest import photos


@pytest.fixture
def path(float_file, tmp_path):
    (tmp_path / "model.tflite").write_bytes(float_file)
    (tmp_path / "labels.txt").write_text("ant\nbee\ncrab\n", encoding="utf-8")
    return tmp_path / "model.tflite"


def test_labels_come_from_the_file_beside_and_follow_the_outputs(path, float_file):
    images = photos(4)
    rows = LiteModel(float_file).predict(images)
    for found, row in zip(Classifier(path).predict(images), rows, strict=True):
        assert found.label == ["ant", "bee", "crab"][row.argmax()]
        assert found.probability == row.max()
        assert found.probabilities == dict(zip(["ant", "bee", "crab"], row.tolist(), strict=True))


def test_paths_arrays_and_pil_images_answer_the_same(path, tmp_path):
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
    exif[0x0112] = 6  # stored lying on its side: turn by 270 degrees to look at it
    Image.fromarray(np.rot90(array)).save(tmp_path / "turned.png", exif=exif)
    classifier = Classifier(path)
    assert classifier.predict(tmp_path / "turned.png") == classifier.predict(array)


def test_wide_photos_are_cropped_at_the_center_not_squeezed(path):
    square = photos(1)[0]
    wide = np.pad(square, ((0, 0), (20, 20), (0, 0)))
    classifier = Classifier(path)
    assert classifier.predict(wide) == classifier.predict(square)


def test_large_photos_are_shrunk_with_antialiasing(path, float_file):
    large = photos(1, size=96)[0]
    shrunk = Image.fromarray(large).resize((32, 32), Image.Resampling.BILINEAR)
    row = LiteModel(float_file).predict(np.asarray(shrunk)[None])[0]
    assert list(Classifier(path).predict(large)[0].probabilities.values()) == row.tolist()


def _grey(image):
    return image.convert("L")


def _deep_grey(image):
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 200)


def _half_transparent(image):
    image.putalpha(image.convert("L"))
    return image


@pytest.mark.parametrize("change", [_grey, _deep_grey, _half_transparent, Image.Image.copy])
@pytest.mark.parametrize("size", [(32, 32), (97, 50), (20, 41)])
def test_photos_are_read_exactly_as_for_training(path, tmp_path, change, size):
    from kpipe.data.decoding import load_image

    photo = tmp_path / "photo.png"
    change(Image.fromarray(photos(1, size=100)[0]).resize(size)).save(photo)
    classifier = Classifier(path)
    row = classifier.model.predict(load_image(photo, 32)[None])[0]
    assert list(classifier.predict(photo)[0].probabilities.values()) == row.tolist()


def test_every_unreadable_image_is_named(path, tmp_path):
    (tmp_path / "text.jpg").write_text("not a photo")
    floats = np.zeros((32, 32, 3))
    with pytest.raises(DataError) as caught:
        Classifier(path).predict(
            [tmp_path / "none.jpg", photos(1)[0], tmp_path / "text.jpg", floats]
        )
    message = str(caught.value)
    assert "none.jpg" in message
    assert "text.jpg (not an image)" in message
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


def test_missing_labels_file_is_named(path):
    path.with_name("labels.txt").unlink()
    with pytest.raises(ExportError, match=r"labels\.txt"):
        Classifier(path)


def test_classifying_loads_neither_tensorflow_nor_keras(path):
    script = (
        "import sys, numpy as np\n"
        "from kpipe.lite import Classifier, benchmark, evaluate, latency\n"
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
