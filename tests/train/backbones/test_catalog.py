from __future__ import annotations

import subprocess
import sys

import keras
import pytest

from kpipe.train.backbones import catalog
from kpipe.train.backbones.catalog import OWN_BACKBONES, backbone_names
from kpipe.train.backbones.model_factory import _constructors


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
