"""A model of composite layers, unfolded into the layers of Keras that these call.

    composite := a custom layer with layers inside and without weights besides theirs
    unfolded  := the same calls of the same inner layers, in one flat graph

    custom layer without layers inside      becomes
    a scale and an offset, learned          DepthwiseConv2D 1x1 with a bias
    stochastic depth                        Dropout of whole images
    Keras' own                              becomes
    Conv2D with one group for each channel  DepthwiseConv2D, which trains and converts far better
    Identity                                nothing
    padding by -inf before a max pooling    symmetric padding: the same maxima, and it quantizes

The layers of KerasHub call other layers inside, so a graph shows one block where pruning,
unfreezing and conversion need its convolutions, and a saved file needs KerasHub to load.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from kpipe.errors import WeightsError
from kpipe.keras_copies import copy_flags, copy_layer, copy_state
from kpipe.keras_graph import replay, require_graph
from kpipe.keras_internals import layers_within

__all__ = ["unfold"]

Tensors = Any


def unfold(model: keras.Model, start: keras.KerasTensor) -> keras.KerasTensor:
    """Call a model on a tensor, with Keras' own layers in place of composite ones.

    Args:
        model: a functional model with one input and one output. It does not change, and shares
            nothing with the result.
        start: what to call it on; its image size may differ from that of the model.

    Returns:
        The output of a graph of plain layers that computes the same.

    Raises:
        WeightsError: a custom layer that no rule of the module's docstring opens.
        ValueError: a layer does not accept the size of its input.

    Example:
        >>> import keras
        >>> from kpipe.train.backbones.unfolding import unfold
        >>> class Block(keras.layers.Layer):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.inner = keras.layers.Conv2D(4, 3, padding="same", name="inner")
        ...     def call(self, x):
        ...         return keras.ops.relu(self.inner(x))
        >>> pixels = keras.Input((8, 8, 4))
        >>> model = keras.Model(pixels, unfold(keras.Sequential([pixels, Block()]), pixels))
        >>> [type(x).__name__ for x in model.operations]
        ['InputLayer', 'Conv2D', 'Relu']
    """
    function = require_graph(model, WeightsError)
    while not all(map(_is_plain, function.operations)):
        image = keras.Input(batch_shape=start.shape)
        function = keras.Model(image, replay(function, [image], _opened))
    copies: dict[int, Any] = {}
    return replay(function, [start], lambda operation: _copied(operation, copies))


def _is_plain(operation: Any) -> bool:
    return type(operation).__module__.startswith("keras.")


def _opened(operation: Any) -> Callable[..., Tensors]:
    """Return what to call in place of an operation: itself, or what its layer calls inside."""
    if _is_plain(operation):
        return operation
    own = {id(v) for v in operation.weights}
    own -= {id(v) for layer in layers_within(operation, False) for v in layer.weights}
    if own:
        return _affine(operation)
    if not layers_within(operation, False):
        if hasattr(operation, "rate") or hasattr(operation, "drop_prob"):
            return _stochastic_depth(operation)
        if "training" in inspect.signature(operation.call).parameters:
            raise _closed(operation, "it computes something else in training")
    return operation.call


def _affine(layer: Any) -> Callable[..., Tensors]:
    """Replace a layer that computes `scale * x + bias` with two weights of one number each."""
    weights = {weight.name: weight for weight in layer.weights}
    if sorted(weights) != ["bias", "scale"] or any(len(w.shape) for w in weights.values()):
        raise _closed(layer, "it has weights besides those of the layers inside")
    same = keras.layers.DepthwiseConv2D(1, name=layer.name)

    def call(x: keras.KerasTensor, **_: Any) -> keras.KerasTensor:
        made = same(x)
        for variable, name in ((same.kernel, "scale"), (same.bias, "bias")):
            variable.assign(np.full(variable.shape, weights[name].numpy()))
        return made

    return call


def _stochastic_depth(layer: Any) -> Callable[..., Tensors]:
    rate = float(getattr(layer, "rate", getattr(layer, "drop_prob", 0.0)))

    def call(x: keras.KerasTensor, **_: Any) -> keras.KerasTensor:
        shape = (None, *(1 for _ in x.shape[1:]))
        return keras.layers.Dropout(rate, noise_shape=shape, name=layer.name)(x) if rate else x

    return call


def _closed(layer: Any, reason: str) -> WeightsError:
    return WeightsError(
        f"the layer {layer.name!r} ({type(layer).__name__}) cannot be unfolded: {reason}",
        expected="a network of convolutions",
        fix="choose another backbone: docs/backbones.md lists the families that work",
    )


def _copied(operation: Any, copies: dict[int, Any]) -> Callable[..., Tensors]:
    """Return what calls the copy of a plain operation, without the arguments that say nothing."""

    def call(*args: Any, **kwargs: Any) -> Tensors:
        if isinstance(operation, keras.layers.Identity):
            return args[0]
        if _pads_by_infinity(operation, args, kwargs):
            return keras.ops.pad(args[0], operation.pad_width, mode="symmetric")
        given = {key: value for key, value in kwargs.items() if (key, value) != ("training", None)}
        if id(operation) in copies:
            return copies[id(operation)](*args, **given)
        weights = None
        if _is_depthwise(operation):
            copy, weights = _depthwise(operation)
        else:
            copy = copy_layer(operation, WeightsError)
        copies[id(operation)] = copy
        made = copy(*args, **given)
        if weights is not None:
            copy.set_weights(weights)
        elif isinstance(operation, keras.layers.Layer):
            copy_state(operation, copy)
            copy_flags(operation, copy)
        return made

    return call


def _pads_by_infinity(operation: Any, args: Any, kwargs: Any) -> bool:
    """Whether an operation pads one pixel around an image that is pooled by its maxima next.

    Only such a pooling makes something finite of -inf. Its windows that reach a copy of the border
    contain the border too, so the copy changes no maximum.
    """
    constants = [*args[1:], kwargs.get("constant_values")]
    widths = keras.tree.flatten(getattr(operation, "pad_width", 2))
    return -np.inf in [x for x in constants if isinstance(x, float)] and max(widths) == 1


def _is_depthwise(operation: Any) -> bool:
    return (
        type(operation) is keras.layers.Conv2D
        and operation.groups > 1
        and operation.kernel.shape[2] == 1
        and operation.strides[0] == operation.strides[1]
        and operation.padding in ("same", "valid")
    )


# Settings of a Conv2D that a DepthwiseConv2D has too, by the names that it gives them.
_SHARED: Mapping[str, str] = {
    **{key: key for key in ("name", "trainable", "dtype", "kernel_size", "strides", "padding")},
    **{key: key for key in ("data_format", "dilation_rate", "activation", "use_bias")},
    **{key: key for key in ("bias_initializer", "bias_regularizer", "bias_constraint")},
    **{f"kernel_{term}": f"depthwise_{term}" for term in ("initializer", "regularizer")},
}


def _depthwise(layer: keras.layers.Conv2D) -> tuple[keras.layers.Layer, list[np.ndarray]]:
    """Return a depthwise convolution and its weights: (h, w, 1, c * m) -> (h, w, c, m)."""
    config = layer.get_config()
    given = {new: config[old] for old, new in _SHARED.items()}
    height, width, _, filters = layer.kernel.shape
    multiplier = filters // layer.groups
    copy = keras.layers.DepthwiseConv2D.from_config({**given, "depth_multiplier": multiplier})
    kernel, *bias = layer.get_weights()
    return copy, [kernel.reshape(height, width, layer.groups, multiplier), *bias]
