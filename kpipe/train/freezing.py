"""Which layers of a model train.

model  := backbone layers, head layers
head   := everything after the last layer whose output has a height and a width
"""

from __future__ import annotations

import keras

from kpipe.errors import TrainingError

__all__ = ["unfreeze"]


def unfreeze(model: keras.Model, last: int | None = None) -> list[str]:
    """Lets the head and the last layers of the backbone train, and freezes all others.

    A frozen BatchNormalization runs in inference mode: it uses its moving statistics and leaves
    them as they are. Compile after this call, since Keras reads what trains when it compiles.

    Args:
        model: a model made by `classifier`, or any other with a spatial part and a head.
        last: how many layers at the end of the backbone train, counted as in
            `model.layers[-last:]`, layers without weights included; None for all, 0 for the head
            only.

    Returns:
        The names of the layers with weights that will train, in the order of the model.

    Raises:
        TrainingError: `last` is negative or more than the backbone has.
    """
    layers = model.layers
    head = _head_start(model)
    if last is not None and not 0 <= last <= head:
        raise TrainingError(
            f"cannot unfreeze the last {last} layers of a backbone of {head}",
            expected=f"0 to {head}, or None for all",
            received=str(last),
        )
    first = 0 if last is None else head - last
    model.trainable = True
    for index, layer in enumerate(layers):
        layer.trainable = index >= first
    return [layer.name for layer in layers[first:] if layer.trainable_weights]


def _head_start(model: keras.Model) -> int:
    spatial = [
        index
        for index, layer in enumerate(model.layers)
        if isinstance(layer.output, keras.KerasTensor) and len(layer.output.shape) == 4
    ]
    return spatial[-1] + 1 if spatial else 0
