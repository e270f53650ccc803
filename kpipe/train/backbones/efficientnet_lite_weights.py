"""Assign the published tensors of EfficientNet-Lite to a Keras model.

The weights come in PyTorch files, so kernels are transposed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np

from kpipe.errors import WeightsError

__all__ = ["assign_tensors"]

_PARTS = ("weight", "bias", "running_mean", "running_var")
# PyTorch stores kernels as (output, input, height, width), Keras with height and width first.
_AXES: Mapping[type, tuple[int, ...]] = {
    keras.layers.BatchNormalization: (0,),
    keras.layers.Conv2D: (2, 3, 1, 0),
    keras.layers.Dense: (1, 0),
    keras.layers.DepthwiseConv2D: (2, 3, 0, 1),
}


def assign_tensors(
    model: keras.Model, blocks: Sequence[str], tensors: Mapping[str, np.ndarray]
) -> None:
    """Set every weight of an EfficientNet-Lite, and require that every tensor is used.

    Args:
        model: with or without its top.
        blocks: the names of its blocks, in order.
        tensors: the content of the PyTorch file.

    Raises:
        WeightsError: the file holds tensors that the model does not have.
    """
    # Keras has no batch counters. Without the top, the dense layer's tensors are not needed.
    unused = {name for name in tensors if not name.endswith("num_batches_tracked")}
    prefixes = _prefixes(model, blocks)
    if "predictions" not in prefixes:
        unused -= {"_fc.weight", "_fc.bias"}
    for layer_name, prefix in prefixes.items():
        layer = model.get_layer(layer_name)
        names = [f"{prefix}.{part}" for part in _PARTS[: len(layer.weights)]]
        kernel, *others = (tensors[name] for name in names)
        layer.set_weights([kernel.transpose(_AXES[type(layer)]), *others])
        unused -= set(names)
    if unused:
        raise WeightsError(
            "the weights file holds tensors that the architecture does not have",
            expected="every tensor used",
            received=", ".join(sorted(unused)),
        )


def _prefixes(model: keras.Model, blocks: Sequence[str]) -> dict[str, str]:
    """Map the name of each Keras layer to the prefix of its tensors in the PyTorch file."""
    table = {
        "stem_conv": "_conv_stem",
        "stem_bn": "_bn0",
        "top_conv": "_conv_head",
        "top_bn": "_bn1",
        "predictions": "_fc",
    }
    parts = {
        "expand_conv": "_expand_conv",
        "expand_bn": "_bn0",
        "dwconv": "_depthwise_conv",
        "bn": "_bn1",
        "project_conv": "_project_conv",
        "project_bn": "_bn2",
    }
    for number, block in enumerate(blocks):
        table |= {f"{block}_{ours}": f"_blocks.{number}.{part}" for ours, part in parts.items()}
    return {layer.name: table[layer.name] for layer in model.layers if layer.weights}
