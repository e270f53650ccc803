"""The names of KerasHub's presets, known without KerasHub."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kpipe.errors import WeightsError
from kpipe.stages import FineTune
from kpipe.train.backbones import hub_catalog
from kpipe.train.backbones.hub_catalog import find_preset, hub_presets, refuse_preset


@pytest.fixture
def installed() -> None:
    pytest.importorskip("keras_hub")


@pytest.mark.usefixtures("installed")
def test_the_presets_are_those_of_kerashub() -> None:
    import keras_hub

    families = [getattr(keras_hub.models, name) for name in hub_catalog._FAMILIES.values()]
    live = {name: kind["kaggle_handle"] for f in families for name, kind in f.presets.items()}
    assert dict(hub_presets()) == live
    assert "mobilenet_v3_large_100_imagenet" in live


@pytest.mark.usefixtures("installed")
def test_a_declaration_imports_neither_keras_nor_kerashub() -> None:
    code = (
        "import sys; from kpipe.stages import FineTune; "
        "assert FineTune('hub:resnet_18_imagenet').validation_errors() == []; "
        "sys.exit(', '.join({'keras', 'keras_hub', 'tensorflow'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hub:mobilenet_v3_larg_100_imagenet", "mean 'hub:mobilenet_v3_large_100_imagenet'?"),
        ("mobilenet_v3_large_100_imagenet", "mean 'hub:mobilenet_v3_large_100_imagenet'?"),
        ("hub:bert_tiny_en_uncased", "use one of: csp_darknet_53_ra_imagenet"),
        ("hub:", "use one of: csp_darknet_53_ra_imagenet"),
    ],
)
def test_unknown_presets_are_refused_before_any_download(name: str, words: str) -> None:
    (error,) = FineTune(name).validation_errors()
    assert words in error


def test_a_missing_kerashub_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_catalog.importlib.util, "find_spec", lambda _: None)
    hub_presets.cache_clear()
    try:
        with pytest.raises(WeightsError, match="not installed") as caught:
            refuse_preset("hub:resnet_18_imagenet")
        assert 'pip install "kpipe[keras_hub]"' in str(caught.value)
        assert hub_presets() == {}
    finally:
        hub_presets.cache_clear()


@pytest.mark.usefixtures("installed")
def test_a_folder_is_a_preset_if_its_network_is_convolutional(tmp_path: Path) -> None:
    name = f"hub:{tmp_path}"
    with pytest.raises(WeightsError, match="holds no preset"):
        refuse_preset(name)
    config = tmp_path / "config.json"
    for text in ("no json", "[]", "{}"):
        config.write_text(text)
        with pytest.raises(WeightsError, match="cannot be read"):
            refuse_preset(name)
    config.write_text(json.dumps({"class_name": "ViTBackbone"}))
    with pytest.raises(WeightsError, match="holds a ViTBackbone"):
        refuse_preset(name)
    config.write_text(json.dumps({"class_name": "VGGBackbone"}))
    refuse_preset(name)
    assert FineTune(name).validation_errors() == []
    assert FineTune(name).sources() == (tmp_path,)


@pytest.mark.usefixtures("installed")
def test_downloaded_presets_are_found_in_the_cache(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    name = "hub:vgg_11_imagenet"
    assert find_preset(name) == name
    handle = hub_presets()["vgg_11_imagenet"].removeprefix("kaggle://")
    folder = tmp_path / "models" / handle
    folder.mkdir(parents=True)
    (folder / "config.json").touch()
    assert find_preset(name) == name  # the weights are missing
    (folder / "model.weights.h5").touch()
    assert find_preset(name) == folder
