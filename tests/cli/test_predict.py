"""What `kpipe predict` prints."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from kpipe.cli.predict import predict
from kpipe.ensemble import average
from kpipe.lite import add_metadata, convert


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
