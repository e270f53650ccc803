"""Batches of images from the data that users pass: arrays, lists of batches, datasets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kpipe.errors import PruneError

__all__ = ["calibration_batches", "image_batches", "require_one_input"]


def require_one_input(model: keras.Model, what: str, fix: str) -> None:
    """Refuse models of several inputs, which batches of images cannot feed.

    Raises:
        PruneError: the model has several inputs; `what` fails, `fix` says what to do instead.
    """
    if len(model.inputs) > 1:
        raise PruneError(
            what,
            expected="a model of one input",
            received=f"{len(model.inputs)} inputs",
            fix=fix,
        )


def image_batches(
    data: Iterable[Any] | None, model: keras.Model, *, labels: bool = False
) -> Iterable[tuple[tf.Tensor, tf.Tensor]]:
    """Yield (images, labels) of each batch; images are float32.

    Args:
        data: one array of images, or batches of images or (images, ...); None yields nothing.
        model: a model of one input that takes the images.
        labels: whether labels are needed; otherwise they are ignored, and a 0 takes their place.

    Raises:
        PruneError: images of another size or number of channels, or missing labels.
    """
    expected = tf.TensorShape(model.inputs[0].shape)
    data = [data] if isinstance(data, np.ndarray | tf.Tensor) else data
    for item in data or ():
        images, *rest = item if isinstance(item, tuple | list) else (item,)
        if isinstance(images, dict) and len(images) == 1:  # {name of the input: images}
            (images,) = images.values()
        try:
            shape = np.shape(images)
        except ValueError:  # a list of images of different sizes
            shape = ()
        if shape[:1] == (0,):
            continue
        if not expected.is_compatible_with(shape):
            raise PruneError(
                "the images do not fit the model",
                expected=str(tuple(expected)),
                received=str(shape),
                fix="pass batches in the shape of the model's input",
            )
        if labels and not rest:
            raise PruneError(
                "this criterion needs labels, and the data has none",
                expected="batches (images, labels)",
                received="images alone",
            )
        truth = tf.convert_to_tensor(rest[0]) if labels else tf.constant(0)
        yield tf.cast(images, "float32"), truth


def calibration_batches(
    model: keras.Model, images: Iterable[Any], most: int | None = None
) -> list[tf.Tensor]:
    """Return the images that a model is calibrated on after a removal, float32.

    Args:
        model: takes the images.
        images: see `image_batches`.
        most: no more batches are read once there are this many images; None reads all.

    Raises:
        PruneError: no images, images of another shape, or a model of several inputs.
    """
    require_one_input(
        model,
        f"{model.name!r} cannot be calibrated after a removal",
        "omit calibration: training updates the statistics",
    )
    batches, count = [], 0
    for batch, _ in image_batches(images, model):
        batches.append(batch)
        count += len(batch)
        if most is not None and count >= most:
            break
    if not batches:
        raise PruneError(
            "there are no images to calibrate on",
            expected="batches of images, (batch, height, width, channels)",
            fix="pass a list of batches, or a finite tf.data.Dataset",
        )
    return batches
