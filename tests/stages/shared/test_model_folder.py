from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from kpipe.stages.shared.model_folder import (
    is_saved,
    join_histories,
    load_model,
    read_metadata,
    reset_keras,
    save_model,
)
from tests.stages.conftest import toy

PIXELS = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype("float32")


def saved(folder: Path, seed: int = 0) -> Path:
    folder.mkdir()
    reset_keras(seed)
    save_model(toy(seed), folder, title="toy")
    return folder


def content(folder: Path) -> bytes:
    return (folder / "model.keras").read_bytes()


def test_equal_weights_give_equal_bytes_whatever_was_built_before(tmp_path: Path) -> None:
    first = saved(tmp_path / "first")
    for seed in (5, 6):
        toy(seed).predict(PIXELS, verbose=0)
    keras.applications.MobileNet(weights=None, alpha=0.25, input_shape=(32, 32, 3))
    assert content(saved(tmp_path / "again")) == content(first)
    assert content(saved(tmp_path / "other", seed=1)) != content(first)


def test_no_clock_is_in_the_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(saved(tmp_path / "made") / "model.keras") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert "date_saved" not in json.loads(archive.read("metadata.json"))
        assert archive.testzip() is None


def test_a_model_that_was_trained_is_saved_like_one_that_was_not(tmp_path: Path) -> None:
    saved(tmp_path / "plain")
    reset_keras(0)
    model = toy(0)
    weights = model.get_weights()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(PIXELS, np.zeros(4, int), verbose=0)
    model.set_weights(weights)
    (tmp_path / "trained").mkdir()
    save_model(model, tmp_path / "trained", title="toy")
    loaded = load_model(tmp_path / "trained")
    assert not loaded.compiled
    expected = load_model(tmp_path / "plain").predict(PIXELS, verbose=0)
    np.testing.assert_array_equal(loaded.predict(PIXELS, verbose=0), expected)


def test_a_loaded_model_answers_as_the_saved_one(tmp_path: Path) -> None:
    reset_keras(0)
    model = toy(0)
    expected = model.predict(PIXELS, verbose=0)
    save_model(model, tmp_path, title="toy", recipe={"epochs": 2})
    np.testing.assert_array_equal(load_model(tmp_path).predict(PIXELS, verbose=0), expected)
    assert read_metadata(tmp_path) == {"title": "toy", "recipe": {"epochs": 2}}


def test_a_model_loaded_twice_is_saved_in_equal_bytes(tmp_path: Path) -> None:
    source = saved(tmp_path / "source")
    for name in ("first", "second"):
        toy(9)
        (tmp_path / name).mkdir()
        save_model(load_model(source), tmp_path / name, title="toy")
    assert content(tmp_path / "first") == content(tmp_path / "second")


def test_objects_that_layers_share_are_numbered_not_addressed(tmp_path: Path) -> None:
    with zipfile.ZipFile(saved(tmp_path / "made") / "model.keras") as archive:
        config = archive.read("config.json").decode()
    marks = re.findall(r'"shared_object_id": (\d+)', config)
    assert len(marks) > 1 and set(marks) == {"1"}


def test_code_inside_a_model_file_is_refused(tmp_path: Path) -> None:
    pixels = keras.Input((4,))
    model = keras.Model(pixels, keras.layers.Lambda(lambda x: x + 1)(pixels))
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"(?i)lambda"):
        load_model(tmp_path)


def test_the_state_of_the_process_before_does_not_reach_what_begins(tmp_path: Path) -> None:
    drawn = []
    for noise in (0, 3):
        np.random.default_rng(noise)
        for _ in range(noise):
            keras.random.normal((2,))
            keras.layers.Dense(2)
        reset_keras(4)
        layer = keras.layers.Dense(2)
        layer.build((None, 3))
        drawn.append((layer.name, np.array(layer.kernel)))
    assert drawn[0][0] == drawn[1][0]
    np.testing.assert_array_equal(drawn[0][1], drawn[1][1])


def test_a_folder_is_saved_only_when_its_last_file_is_there(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "epoch-00000.npz").touch()
    assert not is_saved(tmp_path)
    reset_keras(0)
    toy(0).save(tmp_path / "model.keras")
    assert not is_saved(tmp_path)
    assert (tmp_path / "training").exists()
    save_model(toy(0), tmp_path, title="toy")
    assert is_saved(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.keras"]


def test_checkpoints_left_by_a_kill_after_saving_are_removed(tmp_path: Path) -> None:
    saved(tmp_path / "made")
    (tmp_path / "made" / "training-round-1").mkdir()
    assert is_saved(tmp_path / "made")
    assert not (tmp_path / "made" / "training-round-1").exists()


def test_histories_are_joined_in_order(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "history.json").write_text(json.dumps([{"title": number}]))
    join_histories(tmp_path, [tmp_path / "1", tmp_path / "2"])
    assert json.loads((tmp_path / "history.json").read_text()) == [{"title": 1}, {"title": 2}]
