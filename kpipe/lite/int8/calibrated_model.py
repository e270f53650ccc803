"""A float32 model with the range of each tensor: what an int8 file is quantized from.

The file is parsed once. Each step changes a copy of the parsed model that shares its weights, and
the model is serialized only where TensorFlow's quantizer needs bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from kpipe.lite.tflite_file import serialize

__all__ = ["CalibratedModel"]


@dataclass(frozen=True)
class CalibratedModel:
    """A float32 `.tflite` model that stores the range of each tensor.

    Args:
        float_file: content of the converter's file, to run the model in float.
        parsed: the model with its ranges, a `ModelT` of the TFLite schema; not to be changed.
        mean_errors: name of an operation's output -> mean error (channels,) that int8 adds to it.
            Empty until measured.
    """

    float_file: bytes
    parsed: Any
    mean_errors: Mapping[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def content(self) -> bytes:
        """The model with its ranges as bytes, for the quantizer."""
        return serialize(self.parsed)
