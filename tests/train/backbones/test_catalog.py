from __future__ import annotations

import inspect
import itertools
import subprocess
import sys
import warnings
from unittest.mock import MagicMock

import keras
import pytest

from kpipe.errors import WeightsError
from kpipe.train import backbone
from kpipe.train.backbones import catalog, model_factory
from kpipe.train.backbones.catalog import OWN_BACKBONES, backbone_facts, backbone_names
from kpipe.train.backbones.keras_weights import fetching
from kpipe.train.backbones.model_factory import _constructors
from kpipe.train.backbones.weights_files import imagenet_file_name


def test_the_names_equal_those_of_the_constructors() -> None:
    assert backbone_names() == tuple(sorted(_constructors()))


def test_every_constructor_of_keras_is_among_them() -> None:
    live = {name for name in dir(keras.applications) if name[0].isupper()}
    assert set(backbone_names()) == live | set(OWN_BACKBONES)
    assert {"MobileNetV2", "ResNet50V2", "EfficientNetLite0"} <= set(backbone_names())


def test_names_do_not_import_keras() -> None:
    code = (
        "import sys; from kpipe.train import backbone_names; assert backbone_names(); "
        "sys.exit(', '.join({'keras', 'tensorflow'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_missing_keras_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from kpipe.errors import InstallationError

    monkeypatch.setattr(catalog.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InstallationError, match="not installed"):
        backbone_names.__wrapped__()


class Asked(Exception):
    """Keras asks for a file of weights."""


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch):
    """Return a function: `ask(name, size, **options)` -> the file that the constructor asks for.

    Its layers are replaced by mocks, so that nothing is built. What it checks, it still checks.
    """

    def fetch(name: str, origin: str, **_: object) -> str:
        raise Asked(name)

    for module in {sys.modules[constructor.__module__] for constructor in _constructors().values()}:
        if module.__name__.startswith("keras."):
            for built in BUILDING & vars(module).keys():
                monkeypatch.setattr(module, built, MagicMock())
            monkeypatch.setattr(module, "_depth", lambda width, *_: 8, raising=False)

    def asked(name: str, size: int, **options: float) -> str:
        constructor = _constructors()[name]
        try:
            with warnings.catch_warnings(), fetching(fetch):
                warnings.simplefilter("ignore")  # Keras has no weights of this size
                shape = (size, size, 3)
                constructor(include_top=False, weights="imagenet", input_shape=shape, **options)
        except Asked as file:
            return str(file)
        raise AssertionError("Keras asked for no file")

    return asked


# What the modules of `keras.applications` build networks with.
BUILDING = {
    "CustomScaleLayer",
    "Functional",
    "LayerScale",
    "Sequential",
    "StochasticDepth",
    "layers",
    "operation_utils",
}
OF_KERAS = [name for name in backbone_names() if name not in OWN_BACKBONES]


@pytest.mark.parametrize("name", OF_KERAS)
def test_the_facts_are_those_of_keras(name: str, ask) -> None:
    facts = backbone_facts(name)
    smallest = facts.smallest
    assert ask(name, smallest) == imagenet_file_name(name, smallest, smallest)
    with pytest.raises(ValueError, match=f"at least {smallest}x{smallest}"):
        ask(name, smallest - 1)
    parameters = inspect.signature(_constructors()[name]).parameters
    assert bool(facts.alphas) == ("alpha" in parameters)
    for alpha, size in itertools.product(facts.alphas, (96, 128, 160, 192, 224, 230)):
        assert ask(name, size, alpha=alpha) == imagenet_file_name(name, size, size, alpha)
    if facts.alphas:
        with pytest.raises(ValueError, match="alpha"):
            ask(name, 96, alpha=0.37)


@pytest.mark.parametrize("name", ["MobileNet", "MobileNetV2", "MobileNetV3Small"])
def test_the_narrowest_network_can_be_built(name: str) -> None:
    narrowest = backbone_facts(name).narrowest or 0.001
    assert backbone(name, image_size=32, weights=None, alpha=narrowest).output_shape[-1] > 0
    if backbone_facts(name).narrowest:
        with pytest.raises(ValueError, match="filters"):
            _constructors()[name](
                include_top=False, weights=None, input_shape=(32, 32, 3), alpha=narrowest * 0.99
            )


def test_efficientnet_lite0_takes_one_pixel() -> None:
    assert backbone_facts("EfficientNetLite0").smallest == 1
    model = backbone("EfficientNetLite0", image_size=1, weights=None)
    assert model.output_shape == (None, 1, 1, 1280)


def test_a_whole_number_is_a_width(ask, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError):  # Keras looks up "small_224_1_float"
        ask("MobileNetV3Small", 224, alpha=1)
    monkeypatch.setenv("KPIPE_WEIGHTS", "nowhere")
    monkeypatch.setitem(vars(model_factory), "_preprocessed", lambda *_: None)
    with pytest.raises(WeightsError, match=r"small_224_1\.0_float_no_top"):
        backbone("MobileNetV3Small", image_size=224, alpha=1)
