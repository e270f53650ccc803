"""The preprocessing that pretrained weights expect, as layers.

    preprocessing := pixels in [0, 255] -> [channels reversed] -> scale * pixel + offset

It is measured rather than listed: it is an affine map of the color channels, so its values for
black, red, green and blue determine it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kpipe.errors import WeightsError

__all__ = ["rescaled"]


def rescaled(
    preprocess: Callable[[Any], Any], pixels: keras.KerasTensor, owner: str
) -> keras.KerasTensor | None:
    """Apply a preprocessing as layers of Keras.

    Args:
        preprocess: a function of an array `(batch, height, width, 3)`, RGB in [0, 255].
        pixels: what to apply it to, of the same shape.
        owner: whose preprocessing it is, for the message.

    Returns:
        The preprocessed pixels, or None if it changes nothing.

    Raises:
        WeightsError: it mixes color channels.

    Example:
        >>> import keras
        >>> from kpipe.train.backbones.preprocessing import rescaled
        >>> pixels = keras.Input((8, 8, 3))
        >>> scaled = rescaled(lambda x: x / 127.5 - 1, pixels, "MobileNet")
        >>> layer = keras.Model(pixels, scaled).layers[-1]
        >>> round(layer.scale * 255, 4), layer.offset
        (2.0, -1.0)
    """
    # One row of four pixels: black, and full red, green and blue.
    probe = np.concatenate([np.zeros((1, 3)), 255 * np.eye(3)]).astype("float64")[None, None]
    black, *colors = np.asarray(preprocess(probe.copy()))[0, 0]
    matrix = (np.stack(colors) - black) / 255  # row: input channel, column: output channel
    x = pixels
    if np.array_equal(np.abs(matrix) > 0, np.eye(3)[::-1]):
        x = keras.ops.flip(x, axis=-1)  # families trained on BGR
        matrix = matrix[::-1]
    elif not np.array_equal(np.abs(matrix) > 0, np.eye(3)):
        raise WeightsError(
            f"the preprocessing of {owner} mixes color channels",
            expected="a scale and an offset for each channel",
        )
    scale, offset = np.diag(matrix), black
    if np.allclose(scale, 1) and np.allclose(offset, 0):
        return None
    same = np.allclose(scale, scale[0]) and np.allclose(offset, offset[0])
    return keras.layers.Rescaling(
        float(scale[0]) if same else scale.tolist(),
        float(offset[0]) if same else offset.tolist(),
        name="preprocessing",
    )(x)
