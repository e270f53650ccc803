"""Networks of KerasHub: as KerasHub computes them, and ordinary models for every other room."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

pytest.importorskip("keras_hub")

import keras_hub

from kpipe.errors import WeightsError
from kpipe.lite import LiteModel, convert
from kpipe.prune import plan, prunable_fraction, rank, remove_filters
from kpipe.train import backbone, classifier, find_blocks, unfreeze
from tests.prune.masking import colored, randomize, settle, worst_difference
from tests.train.backbones.hub_networks import NETWORKS, SIZE, save

LIGHT = {"mobilenet", "vgg"}
MEMBERS = [pytest.param(n, marks=[] if n in LIGHT else [pytest.mark.slow]) for n in NETWORKS]


@pytest.mark.parametrize("name", MEMBERS)
def test_it_computes_what_kerashub_computes_with_layers_of_keras_alone(
    name: str, tmp_path: Path
) -> None:
    network = NETWORKS[name]()
    converter = save(network, tmp_path / "preset")
    base = backbone(f"hub:{tmp_path / 'preset'}", image_size=SIZE)
    photos = colored(2, SIZE)
    expected = network(converter(photos), training=False)
    if isinstance(expected, dict):
        expected = list(expected.values())[-1]
    error = np.abs(base(photos, training=False) - expected).max()
    assert error <= 1e-6 * np.abs(expected).max()
    base.save(tmp_path / "base.keras")
    with zipfile.ZipFile(tmp_path / "base.keras") as archive:
        assert b"keras_hub" not in archive.read("config.json")
    loaded = keras.models.load_model(tmp_path / "base.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded(photos), base(photos))


def quarters(model: keras.Model) -> dict[str, list[int]]:
    """Return every fourth channel of each group: more, and so small a network predicts nothing."""
    request: dict[str, list[int]] = {}
    for ranking in rank(model, "random").values():
        group = ranking.group
        request.setdefault(group.layer, []).extend(int(c) for c in group.channels[1::4])
    return request


@pytest.mark.parametrize("name", MEMBERS)
def test_it_is_cut_exactly_trains_and_converts(name: str, tmp_path: Path) -> None:
    save(NETWORKS[name](), tmp_path / "preset")
    base = backbone(f"hub:{tmp_path / 'preset'}", image_size=SIZE)
    model = randomize(classifier(base, 3, dropout=0.0), 3)
    assert len(find_blocks(model)) > 3
    everything = len(model.trainable_weights)
    unfreeze(model, 5)
    assert 2 < len(model.trainable_weights) < everything  # 2: the head alone
    unfreeze(model, None)
    assert prunable_fraction(model) >= 0.9
    made = plan(model, quarters(model))
    small = remove_filters(model, made)
    photos = colored(8, SIZE)
    assert worst_difference(model, small, made.kept, photos[:2]) < 1e-4
    assert made.macs_after < 0.8 * made.macs_before
    small.compile(keras.optimizers.SGD(1e-6), "sparse_categorical_crossentropy", run_eagerly=True)
    before = small.get_weights()
    small.train_on_batch(photos, np.arange(8) % 3)
    moved = [not np.array_equal(a, b) for a, b in zip(before, small.get_weights(), strict=True)]
    assert sum(moved) > len(moved) / 2
    answers = settle(small, photos)
    assert np.ptp(answers, axis=0).max() > 0.1
    # `settle` magnifies differences, of logits that hardly differ, a hundredfold.
    np.testing.assert_allclose(LiteModel(convert(small)).predict(photos), answers, atol=1e-3)
    file = LiteModel(convert(small, "int8", [photos]))
    assert (file.input_dtype, file.input_quantization) == (np.uint8, (1.0, 0))
    assert np.ptp(file.predict(photos), axis=0).max() > 0.05


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> tuple[keras.Model, Path]:
    network, folder = NETWORKS["mobilenet"](), tmp_path_factory.mktemp("hub") / "small"
    save(network, folder)
    return network, folder


def test_random_weights_differ_from_those_of_the_preset(preset) -> None:
    loaded, drawn = (
        backbone(f"hub:{preset[1]}", image_size=32, weights=weights)
        for weights in ("imagenet", None)
    )
    assert loaded.name == "small"
    kernels = [model.get_layer("input_conv").kernel.numpy() for model in (loaded, drawn)]
    assert not np.array_equal(*kernels)
    np.testing.assert_array_equal(kernels[0], preset[0].get_layer("input_conv").kernel)


def test_weights_come_from_a_file_of_kerashub_or_of_kpipe(preset, tmp_path: Path) -> None:
    name = f"hub:{preset[1]}"
    loaded = backbone(name, image_size=32)
    loaded.save_weights(tmp_path / "own.weights.h5")
    for file in (preset[1] / "model.weights.h5", tmp_path / "own.weights.h5"):
        again = backbone(name, image_size=32, weights=file)
        for ours, theirs in zip(again.get_weights(), loaded.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    other = backbone("MobileNet", image_size=32, weights=None, alpha=0.25)
    other.save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(WeightsError, match="do not fit"):
        backbone(name, image_size=32, weights=tmp_path / "other.weights.h5")


def test_a_preset_that_cannot_be_fetched_says_how_to_get_it(monkeypatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("no route to www.kaggle.com")

    monkeypatch.setattr(keras_hub.models.Backbone, "from_preset", offline)
    with pytest.raises(WeightsError, match="mobilenet_v3_large_100_imagenet") as caught:
        backbone("hub:mobilenet_v3_large_100_imagenet", image_size=32)
    for words in ("no route", "KAGGLEHUB_CACHE", "save_to_preset", "hub:FOLDER"):
        assert words in str(caught.value)


def test_a_preset_without_its_preprocessing_is_refused(preset, tmp_path: Path) -> None:
    preset[0].save_to_preset(str(tmp_path / "half"))
    with pytest.raises(WeightsError, match="preprocessed"):
        backbone(f"hub:{tmp_path / 'half'}", image_size=32)


def test_damaged_weights_are_an_error_not_random_ones(preset, tmp_path: Path) -> None:
    save(preset[0], tmp_path / "damaged")
    (tmp_path / "damaged" / "model.weights.h5").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="could not read the preset"):
        backbone(f"hub:{tmp_path / 'damaged'}", image_size=32)


def test_options_and_other_networks_are_refused(preset, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(WeightsError, match="has no alpha"):
        backbone(f"hub:{preset[1]}", image_size=32, alpha=0.5)
    with pytest.raises(WeightsError, match="takes no depth"):
        backbone(f"hub:{preset[1]}", image_size=32, depth=5)
    (tmp_path / "config.json").write_text(json.dumps({"class_name": "BertBackbone"}))
    with pytest.raises(WeightsError, match="holds a BertBackbone"):
        backbone(f"hub:{tmp_path}", image_size=32)
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    with pytest.raises(WeightsError, match="channels first"):
        backbone(f"hub:{preset[1]}", image_size=32)


@pytest.mark.slow
@pytest.mark.parametrize("first", [True, False])
def test_kerashub_kerascv_and_tfmot_load_side_by_side(first: bool) -> None:
    # TFMOT sets TF_USE_LEGACY_KERAS, which kpipe takes back.
    order = ["kpipe.sparsity.tfmot.loading", "keras_cv", "keras_hub"]
    names = ", ".join(order if first else reversed(order))
    code = (
        f"import {names}, keras; make = keras_hub.models.VGGBackbone; "
        "model = make(stackwise_num_repeats=[1], stackwise_num_filters=[8]); "
        "assert isinstance(model, keras.Model) and keras.__version__[0] == '3'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
