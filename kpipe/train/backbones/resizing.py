"""The same network for another image size.

    resized := every call of the model's graph on an input of the new size, with the same state

Convolutions and global pooling accept any image size. A network trained at one size is more
accurate at a somewhat larger one, most of all after a short fine-tuning there (Touvron et al. 2019,
"Fixing the train-test resolution discrepancy", arXiv 1906.06423): train small, finish large.
"""

from __future__ import annotations

import keras

from kpipe.errors import TrainingError
from kpipe.keras_copies import copy_model
from kpipe.keras_graph import require_graph
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["resize"]


@names_wrong_kinds
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
    shapes = [tuple(tensor.shape) for tensor in require_graph(model, TrainingError).inputs]
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
    try:
        return copy_model(
            model, TrainingError, input_shapes=[(shapes[0][0], height, width, shapes[0][3])]
        )
    except (ValueError, TypeError) as error:
        raise _bound_to_size(model, height, width, str(error)) from error


def _bound_to_size(model: keras.Model, height: int, width: int, reason: str) -> TrainingError:
    return TrainingError(
        f"{model.name!r} cannot take images of {height} x {width}",
        expected="layers that accept any image size, and an image large enough for each of them",
        received=" ".join(reason.split()),
        fix="pool the feature map instead of flattening it, or choose a larger image",
    )
