"""The same network for images of another size.

    resized := replay every call of the model's graph on an input of the new size, copy the weights

Convolutions and means do not know the size of an image. A network trained at one size does better
at a somewhat larger one, most of all after a short fine-tuning there (Touvron et al. 2019, "Fixing
the train-test resolution discrepancy", arXiv 1906.06423): so train small, finish large.
"""

from __future__ import annotations

from typing import Any

import keras

from kpipe.errors import TrainingError
from kpipe.keras_internals import context_arguments, input_name, set_context_arguments
from kpipe.train.transfer.blocks import read_steps

__all__ = ["resize"]


def resize(model: keras.Model, image_size: int | tuple[int, int]) -> keras.Model:
    """A model with the weights of another, for images of another height and width.

    Args:
        model: a functional model of one input `(batch, height, width, channels)`; it stays as it
            is, and shares nothing with the result.
        image_size: new height and width in pixels, or one number for both.

    Returns:
        The new model, not compiled: same graph and layer names, equal weights and random seeds, the
        same layers frozen.

    Raises:
        TrainingError: a model that is no functional one of one image input, an image too small, or
            an architecture that knows its image size, such as a dense layer on a flattened map.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    shapes = [tuple(tensor.shape) for tensor in model.inputs or []]
    if len(shapes) != 1 or len(shapes[0]) != 4 or isinstance(model, keras.Sequential):
        raise TrainingError(
            f"{model.name!r} is not a network of one image",
            expected="a functional model of one input (batch, height, width, channels)",
            received=f"{type(model).__name__} of {shapes}",
        )
    if min(height, width) < 1:
        raise TrainingError(
            "images need a size", expected="1 pixel or more", received=f"{height} x {width}"
        )
    steps = read_steps(model)
    shape = (height, width, shapes[0][3])
    given = model.inputs[0]
    pixels = keras.Input(shape, dtype=given.dtype, name=input_name(given))
    try:
        new = keras.models.clone_model(
            model,
            input_tensors=pixels,
            clone_function=lambda layer: _renewed(layer, shapes[0], (height, width)),
        )
    except (ValueError, TypeError) as error:
        raise _refused(model, height, width, str(error)) from error
    pairs = [
        (old.operation, now.operation)
        for old, now in zip(steps, read_steps(new), strict=True)
        if isinstance(old.operation, keras.layers.Layer)
    ]
    changed = [
        f"{old.name}: {[tuple(v.shape) for v in old.weights]} -> "
        f"{[tuple(v.shape) for v in now.weights]}"
        for old, now in pairs
        if [v.shape for v in old.weights] != [v.shape for v in now.weights]
    ]
    if changed:
        raise _refused(model, height, width, "; ".join(changed))
    for old, now in pairs:
        for value, variable in zip(old.variables, now.variables, strict=True):
            variable.assign(value)
        now.trainable = old.trainable
        set_context_arguments(now, context_arguments(old))
    return new


def _renewed(layer: Any, whole: tuple[Any, ...], size: tuple[int, int]) -> Any:
    """A layer as it was before it was built; nested models may hold the size of their input."""
    if isinstance(layer, keras.Sequential):
        inner = [_renewed(each, whole, size) for each in layer.layers]
        return keras.Sequential(inner, name=layer.name)
    if isinstance(layer, keras.Model) and tuple(layer.input_shape) == whole:
        return resize(layer, size)
    return type(layer).from_config(layer.get_config())


def _refused(model: keras.Model, height: int, width: int, reason: str) -> TrainingError:
    return TrainingError(
        f"{model.name!r} cannot take images of {height} x {width}",
        expected="layers that work at any image size, and an image large enough for each of them",
        received=" ".join(reason.split()),
        fix="pool the map instead of flattening it, or choose a larger image",
    )
