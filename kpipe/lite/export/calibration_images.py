"""Calibration images: the images that set the ranges of an int8 file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from kpipe.errors import ExportError

__all__ = ["prepare_calibration_images"]

_NESTED = (tuple, list, dict)  # images with labels, which NumPy might merge into one array


def prepare_calibration_images(
    calibration: Iterable[Any] | None, shape: tuple[int, int, int]
) -> list[np.ndarray]:
    """Check the calibration images, and give the first one a black and a white pixel.

    Args:
        calibration: images (height, width, 3) or batches of them, in [0, 255].
        shape: (height, width, 3) of the model's input.

    Returns:
        Float32 images (1, height, width, 3).

    Raises:
        ExportError: there are no images, or they do not fit the model.
    """
    expected = f"images (height, width, 3) or (n, height, width, 3) of size {shape} in [0, 255]"
    images: list[np.ndarray] = []
    for position, item in enumerate(() if calibration is None else calibration):
        try:
            batch = None if isinstance(item, _NESTED) else np.asarray(item, np.float32)
        except (TypeError, ValueError):
            batch = None
        if batch is None:
            raise ExportError(
                f"calibration item {position} is a {type(item).__name__}, not an array",
                expected=expected,
                fix="leave out the labels: dataset.map(lambda image, label: image)",
            )
        if batch.shape[-3:] != shape or batch.ndim not in (3, 4):
            raise ExportError(
                f"calibration item {position} does not have the model's input size",
                expected=expected,
                received=f"shape {batch.shape}",
                fix="pass the images that the model was trained on, before its preprocessing",
            )
        if batch.size and not (batch.min() >= 0 and batch.max() <= 255):  # NaN fails both
            raise ExportError(
                f"calibration item {position} is outside the range of pixels",
                expected=expected,
                received=f"values from {batch.min()} to {batch.max()}",
                fix="pass raw pixels; the model's own preprocessing scales them",
            )
        images.extend(image[None] for image in batch.reshape(-1, *shape))
    if not images:
        raise ExportError(
            "int8 needs calibration images, and there are none",
            fix="convert(model, 'int8', calibration=images) with a few hundred training images",
        )
    # The input range becomes the input scale. With a black and a white pixel it is [0, 255]: scale
    # 1 and zero point 0, so that an app passes camera bytes as they are.
    images[0] = images[0].copy()
    images[0][0, 0, 0], images[0][0, -1, -1] = 0.0, 255.0
    return images
