"""What `kpipe predict` prints."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from kpipe.cli.predict import predict
from kpipe.ensemble import average
from kpipe.errors import DataError
from kpipe.lite import add_metadata, convert


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a model of three colors, two photos and a torn one."""
    monkeypatch.chdir(tmp_path)
    pixels = keras.Input((8, 8, 3))
    colors = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 51)(pixels))
    content = convert(keras.Model(pixels, keras.layers.Softmax()(colors)))
    Path("model.tflite").write_bytes(add_metadata(content, ["red", "green", "blue"]))
    for name, color in (("grey.png", (100, 90, 90)), ("red.png", (255, 0, 0))):
        Path("photos").mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), color, np.uint8)).save(Path("photos", name))
    Path("photos", "torn.png").write_bytes(b"torn")
    return tmp_path


def test_a_table_has_a_row_for_each_image(folder: Path) -> None:
    words = ["model.tflite", "photos", "--csv", "new/answers.csv"]
    outcome = CliRunner().invoke(predict, words)
    assert isinstance(outcome.exception, DataError) and "torn.png" in outcome.exception.what
    with open("new/answers.csv", encoding="utf-8", newline="") as file:
        grey, red, torn = csv.DictReader(file)
    assert (grey["path"], grey["label"], grey["sure"]) == ("photos/grey.png", "red", "True")
    assert float(grey["probability of red"]) == pytest.approx(0.378, abs=1e-3)
    assert float(red["probability of red"]) == float(red["probability"])
    assert (torn["label"], torn["probability of red"]) == ("", "") and "torn.png" in torn["error"]
    again = CliRunner().invoke(predict, words)
    assert "already exists" in str(again.exception)


def test_hostile_names_are_escaped_in_the_table(folder: Path) -> None:
    image = Path("photos", "red.png").read_bytes()
    Path("=1+1.png").write_bytes(image)
    Path(os.fsdecode(b"\xff.png")).write_bytes(image)
    words = ["model.tflite", "=1+1.png", os.fsdecode(b"\xff.png"), "--csv", "t.csv"]
    outcome = CliRunner().invoke(predict, words)
    assert outcome.exit_code == 0, outcome.output
    with open("t.csv", encoding="utf-8", newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    assert paths[0] == "'=1+1.png" and len(paths) == 2


def test_an_empty_folder_is_refused_before_any_work(folder: Path) -> None:
    Path("empty").mkdir()
    words = ["model.tflite", "photos/red.png", "empty", "--csv", "t.csv"]
    outcome = CliRunner().invoke(predict, words)
    assert outcome.output == "" and "no images in empty" in str(outcome.exception)


def test_json_is_one_object(folder: Path) -> None:
    words = ["model.tflite", "photos", "--json", "--top", "2", "--threshold", "0.6"]
    outcome = CliRunner().invoke(predict, words)
    found = json.loads(outcome.output)
    assert (found["command"], found["model"]) == ("predict", "model.tflite")
    grey, red, torn = found["images"]
    assert (grey["label"], grey["sure"], next(iter(grey["probabilities"]))) == ("red", False, "red")
    assert red["sure"] and len(red["probabilities"]) == 2 and "members" not in red
    assert torn.keys() == {"path", "error"}


def test_a_threshold_replaces_that_of_the_file(folder: Path) -> None:
    outcome = CliRunner().invoke(
        predict, ["model.tflite", "photos/grey.png", "--threshold", "0.6", "--top", "1"]
    )
    assert outcome.output == "photos/grey.png: not sure: red 37.8%\n"
    outcome = CliRunner().invoke(predict, ["model.tflite", "photos", "--threshold", "1.5"])
    assert outcome.exit_code == 2 and "1.5" in outcome.output


def test_it_says_where_the_file_is_not_sure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = keras.Input((8, 8, 3))
    colors = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 51)(pixels))
    content = convert(keras.Model(pixels, keras.layers.Softmax()(colors)))
    names = ["red", "green", "blue"]
    Path("model.tflite").write_bytes(add_metadata(content, names, score_threshold=0.6))
    for name, color in (("grey.png", (100, 90, 90)), ("red.png", (255, 0, 0))):
        Image.fromarray(np.full((8, 8, 3), color, np.uint8)).save(name)
    outcome = CliRunner().invoke(predict, ["model.tflite", "grey.png", "red.png", "--top", "1"])
    assert outcome.exit_code == 0, outcome.output
    assert outcome.output == "grey.png: not sure: red 37.8%\nred.png: red 98.7%\n"


def test_it_shows_the_range_of_the_members_of_an_ensemble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    members = []
    for scale in (1 / 51, 1 / 255):
        pixels = keras.Input((8, 8, 3))
        colors = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(scale)(pixels))
        members.append(keras.Model(pixels, keras.layers.Softmax()(colors)))
    content = add_metadata(convert(average(members)), ["red", "green", "blue"])
    Path("ensemble.tflite").write_bytes(content)
    Image.fromarray(np.full((8, 8, 3), (255, 0, 0), np.uint8)).save("red.png")
    outcome = CliRunner().invoke(predict, ["ensemble.tflite", "red.png", "--top", "1"])
    assert outcome.exit_code == 0, outcome.output
    assert outcome.output == "red.png: red 78.1% [57.6% to 98.7%]\n"
