"""What pruning and clustering leave in the kernels of a model."""

from __future__ import annotations

import keras
import numpy as np

from kpipe.sparsity.bridge.mapping import leaves
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["count_unique_weights", "measure_sparsity"]


@names_wrong_kinds
def measure_sparsity(model: keras.Model) -> dict[str, float]:
    """Return the fraction of zeros in each layer's kernels.

    Args:
        model: a Keras 3 model.

    Returns:
        {layer path: fraction of zeros, in [0, 1]}, layers of nested models included.

    Example:
        >>> import keras
        >>> from kpipe.sparsity import measure_sparsity
        >>> dense = keras.layers.Dense(2, kernel_initializer="identity", name="top")
        >>> measure_sparsity(keras.Sequential([keras.Input((2,)), dense]))
        {'top': 0.5}
    """
    fractions = {}
    for path, layer in leaves(model):
        kernels = [weight.numpy().ravel() for weight in layer.weights if "kernel" in weight.name]
        if kernels:
            fractions[path] = float(np.mean(np.concatenate(kernels) == 0))
    return fractions


@names_wrong_kinds
def count_unique_weights(model: keras.Model) -> dict[str, int]:
    """Count the distinct values in each layer's kernel.

    Args:
        model: a Keras 3 model.

    Returns:
        {layer path: number of distinct values}, layers of nested models included.

    Example:
        >>> import keras
        >>> from kpipe.sparsity import count_unique_weights
        >>> dense = keras.layers.Dense(3, kernel_initializer="identity", name="top")
        >>> count_unique_weights(keras.Sequential([keras.Input((3,)), dense]))
        {'top': 2}
    """
    return {
        path: len(np.unique(layer.kernel.numpy()))
        for path, layer in leaves(model)
        if hasattr(layer, "kernel")
    }
