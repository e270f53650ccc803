"""TFMOT, imported without what it leaves behind.

It sets TF_USE_LEGACY_KERAS for the whole process, which turns a `tf.keras` that nobody has used
yet, KerasCV and every child process to tf_keras.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

__all__ = ["cluster_preserving_zeros", "int8_registry", "quant_ops", "tfmot"]


@contextmanager
def _untouched_environment() -> Iterator[None]:
    _ = tf.keras.layers  # decided now, before the variable is set
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    try:
        with warnings.catch_warnings():
            # It compares versions by distutils, which warns of itself.
            warnings.filterwarnings("ignore", message="distutils Version classes are deprecated")
            yield
    finally:
        if before is None:
            os.environ.pop("TF_USE_LEGACY_KERAS", None)
        else:
            os.environ["TF_USE_LEGACY_KERAS"] = before


with _untouched_environment():
    import tensorflow_model_optimization as tfmot
    from tensorflow_model_optimization.python.core.clustering.keras.experimental.cluster import (
        cluster_weights as cluster_preserving_zeros,
    )
    from tensorflow_model_optimization.python.core.quantization.keras import quant_ops
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_registry as int8_registry,
    )
