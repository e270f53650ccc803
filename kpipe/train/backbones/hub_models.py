"""Convolutional networks of KerasHub, by preset.

    backbone := raw RGB pixels in [0, 255] -> the preset's ImageConverter -> its network, unfolded

KerasHub loads the network and its weights; `unfolding` turns it into layers of Keras alone, so
that whatever loads, prunes or converts the result needs no KerasHub.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kpipe.errors import WeightsError
from kpipe.train.backbones.hub_catalog import HUB_PREFIX, preset_folder, refuse_class
from kpipe.train.backbones.preprocessing import rescaled
from kpipe.train.backbones.unfolding import unfold

__all__ = ["hub_backbone"]


def hub_backbone(
    name: str, height: int, width: int, weights: str | None, options: Mapping[str, Any]
) -> keras.Model:
    """Build the network of a preset, with its preprocessing.

    Args:
        name: "hub:" and a preset.
        height: of the images, in pixels.
        width: of the images, in pixels.
        weights: "imagenet" for the weights of the preset, a weights file of its network, or None
            for random weights.
        options: arguments of `kpipe.train.backbone`, none of which a preset accepts.

    Returns:
        A flat functional model: `(batch, height, width, 3)` RGB float32 in [0, 255] to
        `(batch, height', width', channels)`.

    Raises:
        WeightsError: the preset cannot be had, or is not a network of convolutions.
    """
    preset = name.removeprefix(HUB_PREFIX)
    if options:
        raise WeightsError(
            f"a preset of KerasHub takes no {', '.join(options)}",
            expected="the architecture that the preset describes",
            received=", ".join(f"{key}={value!r}" for key, value in options.items()),
            fix="choose another preset",
        )
    if keras.config.image_data_format() != "channels_last":
        raise WeightsError(
            f"{name} cannot be built with the channels first",
            expected='image_data_format "channels_last"',
            received=keras.config.image_data_format(),
            fix='call keras.config.set_image_data_format("channels_last")',
        )
    network, converter = _read(preset, load_weights=weights == "imagenet")
    file = None if weights in ("imagenet", None) else str(weights)
    fits = file is not None and _loads(network, file)
    converter.image_size = None  # the photos have the size that was asked for
    pixels = keras.Input((height, width, 3), name="pixels")
    scaled = rescaled(lambda x: np.asarray(converter(x.astype("float32"))), pixels, name)
    try:
        features = unfold(_deepest(network), pixels if scaled is None else scaled)
        flat = keras.Model(pixels, features, name=re.sub(r"\W+", "_", os.path.basename(preset)))
    except (ValueError, TypeError) as error:
        raise WeightsError(
            f"{name} cannot take images of {height} x {width}",
            received=" ".join(str(error).split()),
            fix="choose larger images",
        ) from error
    if file is not None and not fits and not _loads(flat, file):
        raise WeightsError(
            f"the weights in {file} do not fit {name}",
            expected="the model.weights.h5 of a preset, or a file of save_weights of this backbone",
            fix="load the preset with its own weights, or save the weights again",
        )
    return flat


def _read(preset: str, *, load_weights: bool) -> tuple[keras.Model, Any]:
    """Return the network and the image converter of a preset."""
    import keras_hub

    try:
        network = keras_hub.models.Backbone.from_preset(preset, load_weights=load_weights)
        refuse_class(preset, type(network).__name__)
        converter = keras_hub.layers.ImageConverter.from_preset(preset)
    except WeightsError:
        raise
    except Exception as error:  # of Kaggle, Hugging Face, HTTP, JSON or Keras
        if isinstance(error, FileNotFoundError) and "image_converter" in str(error):
            raise _without_preprocessing(preset, error) from error
        raise _unavailable(preset, error) from error
    if {getattr(each, "data_format", None) for each in (network, converter)} & {"channels_first"}:
        raise WeightsError(
            f"the preset {preset} expects the channels first",
            expected="channels_last",
            fix="choose another preset",
        )
    return network, converter


def _deepest(network: keras.Model) -> keras.Model:
    """Return the network with its last feature map alone; some return one of each stage."""
    if not isinstance(network.output, dict):
        return network
    return keras.Model(network.input, list(network.output.values())[-1])


def _loads(model: keras.Model, file: str) -> bool:
    """Load a file of weights, and return whether it fits."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Skipping")  # weights that stay random
            model.load_weights(file)
    except (ValueError, KeyError, OSError, UserWarning):
        return False
    return True


def _without_preprocessing(preset: str, error: Exception) -> WeightsError:
    return WeightsError(
        f"the preset {preset} does not say how its images are preprocessed",
        expected="image_converter.json",
        received=str(error),
        fix="write it with the ImageConverter of the family, such as "
        "keras_hub.layers.MobileNetImageConverter(scale=1 / 255).save_to_preset(FOLDER)",
    )


def _unavailable(preset: str, error: Exception) -> WeightsError:
    local = preset_folder(HUB_PREFIX + preset) is not None
    return WeightsError(
        f"KerasHub could not read the preset {preset}",
        expected="config.json, model.weights.h5 and image_converter.json in that folder"
        if local
        else "a connection to the service that holds it, or a copy in KerasHub's cache, which "
        "KAGGLEHUB_CACHE names (~/.cache/kagglehub by default)",
        received=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
        fix="write the preset again with backbone.save_to_preset(FOLDER)"
        if local
        else "download it on a machine with a connection, by "
        f'keras_hub.models.ImageClassifier.from_preset("{preset}").save_to_preset(FOLDER), copy '
        f'the folder here, and use "{HUB_PREFIX}FOLDER"',
    )
