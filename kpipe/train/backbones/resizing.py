"""The same network for another image size.

    resized := replay every call of the model's graph on an input of the new size, copy the weights

Convolutions and global pooling accept any image size. A network trained at one size is more
accurate at a somewhat larger one, most of all after a short fine-tuning there (Touvron et al. 2019,
"Fixing the train-test resolution discrepancy", arXiv 1906.06423): train small, finish large.
"""

from __future__ import annotations

from typing import Any

import keras

from kpipe.errors import TrainingError
from kpipe.keras_internals import context_arguments, input_name, set_context_arguments
from kpipe.train.transfer.blocks import read_calls

__all__ = ["resize"]


def resize(model: keras.Model, image_size: int | tuple[int, int]) -> keras.Model:
    """Return a copy of a model for images of another height and width.

    Args:
        model: a functional model with one input `(batch, height, width, channels)`. It does not
            change, and shares nothing with the copy.
        image_size: new height and width in pixels, or one number for both.

    Returns:
        A model that is not compiled, with the same graph, layer names, weights, random seeds and
        frozen layers.

    Raises:
        TrainingError: a model that is not functional or has several inputs, an image that is too
            small, or an architecture bound to its image size, such as a dense layer on a flattened
            feature map.

    Example:
        >>> import keras
        >>> from kpipe.train import resize
        >>> pixels = keras.Input((32, 32, 3))
        >>> x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(pixels))
        >>> small = keras.Model(pixels, keras.layers.Dense(2, activation="softmax")(x))
        >>> resize(small, 48).input_shape
        (None, 48, 48, 3)
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    shapes = [tuple(tensor.shape) for tensor in model.inputs or []]
    if len(shapes) != 1 or len(shapes[0]) != 4 or isinstance(model, keras.Sequential):
        raise TrainingError(
            f"{model.name!r} does not take one image",
            expected="a functional model with one input (batch, height, width, channels)",
            received=f"{type(model).__name__} with inputs {shapes}",
        )
    if min(height, width) < 1:
        raise TrainingError(
            "the image size is out of range",
            expected="1 pixel or more",
            received=f"{height} x {width}",
        )
    steps = read_calls(model)
    shape = (height, width, shapes[0][3])
    given = model.inputs[0]
    pixels = keras.Input(shape, dtype=given.dtype, name=input_name(given))
    try:
        new = keras.models.clone_model(
            model,
            input_tensors=pixels,
            clone_function=lambda layer: _copied(layer, shapes[0], (height, width)),
        )
    except (ValueError, TypeError) as error:
        raise _bound_to_size(model, height, width, str(error)) from error
    pairs = [
        (old.operation, now.operation)
        for old, now in zip(steps, read_calls(new), strict=True)
        if isinstance(old.operation, keras.layers.Layer)
    ]
    changed = [
        f"{old.name}: {[tuple(v.shape) for v in old.weights]} -> "
        f"{[tuple(v.shape) for v in now.weights]}"
        for old, now in pairs
        if [v.shape for v in old.weights] != [v.shape for v in now.weights]
    ]
    if changed:
        raise _bound_to_size(model, height, width, "; ".join(changed))
    for old, now in pairs:
        for value, variable in zip(old.variables, now.variables, strict=True):
            variable.assign(value)
        now.trainable = old.trainable
        set_context_arguments(now, context_arguments(old))
    return new


def _copied(layer: Any, whole: tuple[Any, ...], size: tuple[int, int]) -> Any:
    """Copy a layer, not built; nested models may be bound to the size of their input."""
    if isinstance(layer, keras.Sequential):
        inner = [_copied(each, whole, size) for each in layer.layers]
        return keras.Sequential(inner, name=layer.name)
    if isinstance(layer, keras.Model) and tuple(layer.input_shape) == whole:
        return resize(layer, size)
    return type(layer).from_config(layer.get_config())


def _bound_to_size(model: keras.Model, height: int, width: int, reason: str) -> TrainingError:
    return TrainingError(
        f"{model.name!r} cannot take images of {height} x {width}",
        expected="layers that accept any image size, and an image large enough for each of them",
        received=" ".join(reason.split()),
        fix="pool the feature map instead of flattening it, or choose a larger image",
    )
