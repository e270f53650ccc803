"""Layer names that do not depend on the process, and the layers behind tensor names.

"conv2d_7" of a process's eighth convolution -> "conv2d" in a file of this model alone
"net_1/conv_1/convolution" in the file       -> the layer "conv"
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import keras

from kpipe.keras_internals import layers_within

__all__ = ["canonical_names", "find_layer", "with_canonical_names"]

_Location = tuple[keras.Layer, tuple[keras.Model, ...]]  # a layer and the models it is nested in


def canonical_names(model: keras.Model) -> list[tuple[keras.Layer, str]]:
    """Return each layer with its name, automatic names counted from the model's first layer."""
    names = []
    counts: dict[str, int] = {}
    for layer in dict.fromkeys(layers_within(model)):
        name, base = layer.name, re.sub(r"_\d+$", "", layer.name)
        if base.replace("_", "") == type(layer).__name__.lower():
            number = counts[base] = counts.get(base, -1) + 1
            name = f"{base}_{number}" if number else base
        names.append((layer, name))
    return names


@contextmanager
def with_canonical_names(model: keras.Model) -> Iterator[None]:
    """Rename the layers to their canonical names while the body runs."""
    renamed = canonical_names(model)
    original = [layer.name for layer, _ in renamed]
    try:
        for layer, name in renamed:
            layer.name = name
        yield
    finally:
        for (layer, _), name in zip(renamed, original, strict=True):
            layer.name = name


def find_layer(model: keras.Model, tensor: str) -> str:
    """Return the name of the layer behind a tensor of a converted file.

    For "net_1/relu_1/Relu6;net_1/conv_1/convolution" it is "conv". If nested models have layers of
    the same name, the name includes the models: "member_2/conv".
    """
    canonical = {id(layer): name for layer, name in canonical_names(model)}
    locations = list(_locate_layers(model))
    found = []
    for path in tensor.split(";"):
        parts = path.split("/")[1:]
        # TensorFlow numbers a scope whose name is taken, as layers of a model may be numbered.
        for words in ([re.sub(r"_\d+$", "", part) for part in parts], parts):
            matches = [
                (layer, parents)
                for word in words
                for layer, parents in locations
                if canonical[id(layer)] == word
                and all(canonical[id(parent)] in words for parent in parents)
            ]
            found += matches
            if matches:
                break
    if not found:
        return model.layers[-1].name if tensor.startswith("PartitionedCall") else tensor
    with_kernel = [
        (layer, parents)
        for layer, parents in found
        if not isinstance(layer, keras.Model) and any("kernel" in w.name for w in layer.weights)
    ]
    layer, parents = [*found, *with_kernel][-1]
    unique = sum(other.name == layer.name for other, _ in locations) == 1
    return layer.name if unique else "/".join(part.name for part in (*parents, layer))


def _locate_layers(
    model: keras.Model, parents: tuple[keras.Model, ...] = ()
) -> Iterator[_Location]:
    """Yield each layer with the models that it is nested in, the outermost first."""
    for layer in model.layers:
        yield layer, parents
        if isinstance(layer, keras.Model):
            yield from _locate_layers(layer, (*parents, layer))
