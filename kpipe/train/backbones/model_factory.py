"""Pretrained feature extractors by name, and the classifier on top of one.

    backbone   := raw RGB pixels in [0, 255] -> preprocessing -> features (batch, h, w, channels)
    classifier := backbone -> mean over h and w -> dropout -> dense -> softmax

The preprocessing of each family is measured rather than listed, see `preprocessing`.
"""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import keras

from kpipe.errors import TrainingError, WeightsError
from kpipe.keras_graph import require_graph
from kpipe.train.argument_checks import refuse_out_of_range
from kpipe.train.backbones import efficientnet_lite
from kpipe.train.backbones.catalog import (
    OWN_BACKBONES,
    refuse_name,
    refuse_size,
    refuse_weights_name,
    refuse_width,
)
from kpipe.train.backbones.hub_catalog import is_hub
from kpipe.train.backbones.hub_models import hub_backbone
from kpipe.train.backbones.keras_weights import fetching, keras_files
from kpipe.train.backbones.preprocessing import rescaled
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["backbone", "classifier"]

Constructor = Callable[..., keras.Model]
_FIXED = ("include_top", "input_shape", "input_tensor", "pooling", "classes")


@cache
def _constructors() -> Mapping[str, Constructor]:
    """Return every model constructor of keras.applications, and those of kpipe."""
    found = {
        name: value
        for name, value in vars(keras.applications).items()
        if inspect.isfunction(value) and "include_top" in inspect.signature(value).parameters
    }
    return {**found, **{name: getattr(efficientnet_lite, name) for name in OWN_BACKBONES}}


@names_wrong_kinds
def backbone(
    name: str,
    *,
    image_size: int | tuple[int, int],
    weights: str | Path | None = "imagenet",
    **options: Any,
) -> keras.Model:
    """Build a feature extractor that takes raw pixels and preprocesses them in its graph.

    Args:
        name: one of `backbone_names()`, or "hub:" and a convolutional preset of KerasHub, such as
            "hub:mobilenet_v3_large_100_imagenet", or the folder of a preset.
        image_size: height and width of the input in pixels, or one number for both.
        weights: "imagenet", a weights file for the same architecture without its top, or None for
            random weights. With "imagenet", the environment variable KPIPE_WEIGHTS may name a
            folder that holds the files under the names that Keras gives them.
        **options: passed to the constructor, such as `alpha=0.35` for MobileNetV2.

    Returns:
        A flat functional model: `(batch, height, width, 3)` RGB float32 in [0, 255] to
        `(batch, height', width', channels)`.

    Raises:
        WeightsError: an unknown name, weights that are unavailable or do not fit, or an image size
            or option that the architecture does not accept.

    Example:
        >>> from kpipe.train import backbone
        >>> base = backbone("MobileNet", image_size=64, weights=None, alpha=0.25)
        >>> base.input_shape, base.output_shape
        ((None, 64, 64, 3), (None, 2, 2, 256))
    """
    refuse_name(name)
    source = str(weights) if weights is not None else None
    height, width = _sides(image_size)
    refuse_size(name, height, width)
    if (alpha := options.pop("alpha", None)) is not None:
        refuse_width(name, alpha, source)
        options["alpha"] = float(alpha)  # MobileNetV3 has no weights of alpha=1, but of 1.0
    if source not in ("imagenet", None):
        refuse_weights_name(source)
        if not os.path.isfile(source):
            raise WeightsError(
                f"no weights file at {source}",
                expected=f"a .weights.h5 or .h5 file of {name} without its top",
                fix='check the path, or use weights="imagenet"',
            )
    fixed = [key for key in _FIXED if key in options]
    if fixed:
        raise WeightsError(
            f"a backbone sets {', '.join(fixed)} itself",
            expected="options of the architecture, such as alpha",
            received=", ".join(f"{key}={options[key]!r}" for key in fixed),
        )
    if is_hub(name):
        return hub_backbone(name, height, width, source, options)
    constructor = _constructors()[name]
    fetch = keras_files()
    if source not in ("imagenet", None) and constructor.__module__.endswith(".efficientnet"):
        # EfficientNetB0 to B7 have one more rescaling with weights="imagenet". A file given by its
        # path would be loaded into a graph without it.
        path, source = source, "imagenet"
        fetch = lambda *_, **__: path  # noqa: E731
    arguments: dict[str, Any] = {**options, "include_top": False, "weights": source}
    arguments["input_shape"] = (height, width, 3)
    scaled = _preprocessed(constructor, keras.Input((height, width, 3), name="pixels"))
    if scaled is not None:
        arguments["input_tensor"] = scaled
    try:
        with fetching(fetch), warnings.catch_warnings():
            # Weights that stay random are an error; convolutions accept any image size.
            warnings.filterwarnings("error", message="Skipping")
            warnings.filterwarnings("ignore", message="`input_shape` is undefined or non-square")
            built = constructor(**arguments)
        # A model built on `input_tensor` expects a list with one input, and warns otherwise.
        return keras.Model(built.inputs[0], built.output, name=built.name)
    except (TypeError, ValueError, OSError, UserWarning) as error:
        raise WeightsError(
            f"{name} cannot be built for images of {height} x {width} with weights={weights!r}"
            + "".join(f", {key}={value!r}" for key, value in options.items()),
            received=str(error),
            fix="correct what the message names, or use weights=None to check the architecture",
        ) from error


def _sides(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Return height and width in pixels."""
    sides = image_size if isinstance(image_size, tuple) else (image_size, image_size)
    if min(sides) < 1:
        raise WeightsError(
            "the image size is out of range", expected="1 pixel or more", received=repr(image_size)
        )
    return sides


def _preprocessed(constructor: Constructor, pixels: keras.KerasTensor) -> keras.KerasTensor | None:
    """Apply the family's `preprocess_input` as layers; None if it changes nothing."""
    preprocess = getattr(sys.modules[constructor.__module__], "preprocess_input", None)
    return None if preprocess is None else rescaled(preprocess, pixels, constructor.__name__)


@names_wrong_kinds
def classifier(
    base: keras.Model, classes: int, *, dropout: float = 0.2, seed: int = 0
) -> keras.Model:
    """Add a classification head to a backbone: average pooling, dropout, dense, softmax.

    Args:
        base: a model that ends in features `(batch, height, width, channels)`. The classifier
            shares its layers, so training one trains the other.
        classes: number of classes, at least 2.
        dropout: fraction of the features set to 0 in training, in [0, 1).
        seed: of the dense layer's initial weights and of the dropout.

    Returns:
        A flat functional model from the input of `base` to probabilities `(batch, classes)`.

    Raises:
        TrainingError: fewer than 2 classes, a dropout out of range, or a base that does not end in
            features.

    Example:
        >>> import keras
        >>> from kpipe.train import classifier
        >>> pixels = keras.Input((32, 32, 3))
        >>> base = keras.Model(pixels, keras.layers.Conv2D(8, 3, strides=2)(pixels))
        >>> classifier(base, classes=5).output_shape
        (None, 5)
    """
    if not classes >= 2:
        raise TrainingError(
            "a classifier needs several classes", expected="2 or more", received=str(classes)
        )
    refuse_out_of_range("dropout, a fraction of the features,", dropout, 0, 1)
    refuse_out_of_range("seed", seed, -(2**63), 2**63)
    require_graph(base, TrainingError)
    features = base.output
    if not isinstance(features, keras.KerasTensor) or len(features.shape) != 4:
        raise TrainingError(
            f"the model {base.name!r} does not end in one feature map",
            expected="(batch, height, width, channels)",
            received=str(getattr(features, "shape", features)),
            fix="build it with include_top=False and pooling=None",
        )
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(features)
    x = keras.layers.Dropout(dropout, seed=seed, name="head_dropout")(x)
    start = keras.initializers.GlorotUniform(seed=seed)
    x = keras.layers.Dense(classes, kernel_initializer=start, name="head_logits")(x)
    x = keras.layers.Activation("softmax", name="probabilities")(x)
    return keras.Model(base.inputs[0], x, name=f"{base.name}_classifier")
