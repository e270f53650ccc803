"""Print as JSON how kpipe-lite runs a model, and which public names it lacks.

python without_tensorflow.py FILE.tflite IMAGES.npy PHOTO...
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from typing import Any

import numpy as np

import kpipe
from kpipe.errors import InstallationError
from kpipe.lite import Classifier, LiteModel, add_metadata, benchmark, evaluate, latency


def results(file: str, images: str, *photos: str) -> dict[str, Any]:
    """Return what each function that runs a model returns."""
    pixels = np.load(images)
    labels = np.arange(len(pixels)) % 3
    return {
        "predictions": [one.probabilities for one in Classifier(file).predict(photos)],
        "outputs": LiteModel(add_metadata(file, ["x", "y", "z"])).predict(pixels).tolist(),
        "confusion": evaluate(file, (pixels, labels)).confusion.tolist(),
        "partitions": benchmark(file, runs=5).partitions,
        "latency": latency(file, runs=5) > 0,
    }


def lacking() -> dict[str, str]:
    """Return name -> error for every public name that cannot be used."""
    errors = {}
    packages = [module.name for module in pkgutil.iter_modules(kpipe.__path__) if module.ispkg]
    for package in packages:
        module = importlib.import_module(f"kpipe.{package}")
        for name in module.__all__:
            try:
                getattr(module, name)
            except InstallationError as error:
                errors[f"{package}.{name}"] = str(error)
    try:
        latency(object())
    except InstallationError as error:
        errors["a Keras model"] = str(error)
    return errors


if __name__ == "__main__":
    print(json.dumps({"results": results(*sys.argv[1:]), "lacking": lacking()}))
