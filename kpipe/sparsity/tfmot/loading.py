"""TFMOT, imported without its side effect.

It sets TF_USE_LEGACY_KERAS for the whole process, which would switch an unused `tf.keras`, KerasCV
and every child process to tf_keras.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

__all__ = ["cluster_preserving_zeros", "int8_registry", "quant_ops", "tfmot"]


@contextmanager
def _environment_restored() -> Iterator[None]:
    _ = tf.keras.layers  # loads Keras 3, before the variable is set
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    try:
        with warnings.catch_warnings():
            # It compares versions with distutils, which is deprecated.
            warnings.filterwarnings("ignore", message="distutils Version classes are deprecated")
            yield
    finally:
        if before is None:
            os.environ.pop("TF_USE_LEGACY_KERAS", None)
        else:
            os.environ["TF_USE_LEGACY_KERAS"] = before


with _environment_restored():
    import tensorflow_model_optimization as tfmot
    from tensorflow_model_optimization.python.core.clustering.keras.experimental.cluster import (
        cluster_weights as cluster_preserving_zeros,
    )
    from tensorflow_model_optimization.python.core.quantization.keras import quant_ops
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_registry as int8_registry,
    )
