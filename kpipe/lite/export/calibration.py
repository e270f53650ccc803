"""The images that set the ranges of an int8 file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from kpipe.errors import ExportError

__all__ = ["calibration_images"]

_NESTED = (tuple, list, dict)  # images with labels, which are told apart from arrays


def calibration_images(
    calibration: Iterable[Any] | None, shape: tuple[int, int, int]
) -> list[np.ndarray]:
    """Float32 (1, height, width, 3) each, the first one with a pixel at either end of the range."""
    expected = f"images (height, width, 3) or (n, height, width, 3) of size {shape} in [0, 255]"
    fix = "convert(model, 'int8', calibration=images) with a few hundred training images"
    images: list[np.ndarray] = []
    if not isinstance(calibration, Iterable | None):
        raise ExportError(
            "int8 needs calibration images", expected=expected, received=repr(calibration), fix=fix
        )
    for position, item in enumerate(calibration if calibration is not None else ()):
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
                fix="feed what the model was trained on, before any preprocessing of its own",
            )
        if batch.size and not (batch.min() >= 0 and batch.max() <= 255):  # NaN fails both
            raise ExportError(
                f"calibration item {position} leaves the range of pixels",
                expected=expected,
                received=f"values from {batch.min()} to {batch.max()}",
                fix="give raw pixels; the model's own preprocessing scales them",
            )
        images.extend(image[None] for image in batch.reshape(-1, *shape))
    if not images:
        raise ExportError("int8 needs calibration images, and there are none", fix=fix)
    # The range seen at the input becomes its scale. One black and one white pixel make it
    # [0, 255], scale 1 and zero point 0: the phone passes camera bytes without touching them.
    images[0] = images[0].copy()
    images[0][0, 0, 0], images[0][0, -1, -1] = 0.0, 255.0
    return images
