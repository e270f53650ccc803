"""From the ranges of a float file to an int8 one.

calibrated file, images -> Ranges, of least error, and what each channel is off by
Ranges -> int8 file, some operations in float32 if asked
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf
from tensorflow.lite.python.convert import deduplicate_readonly_buffers, mlir_quantize

from kpipe.lite.int8.biases import corrected, mean_errors
from kpipe.lite.int8.ranges import narrowed
from kpipe.lite.stderr import quiet_stderr
from kpipe.lite.tflite_file import opened, probabilities_in_256ths, written

__all__ = ["Ranges", "quantized", "refined"]

_IMAGES = 64


@dataclass(frozen=True)
class Ranges:
    """What an int8 file is made of.

    Attributes:
        content: a float file with the range of each tensor; not to be shipped.
        shifts: how much int8 adds to each channel of a result on average, by the tensor's name.
    """

    content: bytes
    shifts: Mapping[str, np.ndarray] = field(default_factory=dict)


def refined(ranges: Ranges, images: Sequence[np.ndarray]) -> Ranges:
    """Ranges of least error for some of the images, and what is left of it in the means.

    Args:
        ranges: of `calibrated`.
        images: float32 (1, height, width, 3) in [0, 255].
    """
    some = np.linspace(0, len(images) - 1, min(len(images), _IMAGES)).round().astype(int)
    seen = [images[number] for number in some]
    content = narrowed(ranges.content, seen)
    return Ranges(content, mean_errors(content, seen))


def quantized(ranges: Ranges, keep: Collection[str] = (), *, io_dtype: str = "uint8") -> bytes:
    """The int8 file.

    Args:
        ranges: as they came or refined.
        keep: names of the tensors whose operations stay in float32.
        io_dtype: the type of pixels and probabilities, "uint8" or "float32".
    """
    content, kind = corrected(ranges.content, ranges.shifts, keep), tf.as_dtype(io_dtype)
    with quiet_stderr():
        content = mlir_quantize(
            content, denylisted_nodes=[*keep], input_data_type=kind, output_data_type=kind
        )
    model = opened(deduplicate_readonly_buffers(content))
    if io_dtype == "uint8":
        probabilities_in_256ths(model)
    return written(model)
