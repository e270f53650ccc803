"""Which layers mean the same in Keras 3 and in tf_keras, and how to make one from the other.

    FIELDS = {kind: the settings that define what it computes}

A layer crosses when it is of such a kind and every other setting of its is at rest.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tf_keras

__all__ = ["FIELDS", "equal", "is_raw", "settings_of"]

_REGULARIZED = ("activation", "use_bias", "activity_regularizer")
_KERNEL = ("kernel_regularizer", "kernel_constraint", "bias_regularizer", "bias_constraint")
_CONVOLUTION = ("kernel_size", "strides", "padding", "data_format", "dilation_rate")
_POOLING = ("pool_size", "strides", "padding", "data_format")
_GLOBAL_POOLING = ("data_format", "keepdims")
_AFFINE = ("beta_regularizer", "gamma_regularizer", "beta_constraint", "gamma_constraint")
_DEPTHWISE = ("depth_multiplier", "depthwise_regularizer", "depthwise_constraint")
_POINTWISE = ("pointwise_regularizer", "pointwise_constraint")
_BIAS = ("bias_regularizer", "bias_constraint")

# Kinds of layers that mean the same in both libraries, and the settings that define them.
FIELDS: dict[str, tuple[str, ...]] = {
    "Activation": ("activation",),
    "Add": (),
    "Average": (),
    "AveragePooling2D": _POOLING,
    "BatchNormalization": ("axis", "momentum", "epsilon", "center", "scale", *_AFFINE),
    "Concatenate": ("axis",),
    "Conv2D": ("filters", "groups", *_CONVOLUTION, *_KERNEL, *_REGULARIZED),
    "Cropping2D": ("cropping", "data_format"),
    "Dense": ("units", *_KERNEL, *_REGULARIZED),
    "DepthwiseConv2D": (*_CONVOLUTION, *_DEPTHWISE, *_BIAS, *_REGULARIZED),
    "Dropout": ("rate", "noise_shape", "seed"),
    "ELU": ("alpha",),
    "Flatten": ("data_format",),
    "GlobalAveragePooling2D": _GLOBAL_POOLING,
    "GlobalMaxPooling2D": _GLOBAL_POOLING,
    "LayerNormalization": ("axis", "epsilon", "center", "scale", *_AFFINE),
    "MaxPooling2D": _POOLING,
    "Maximum": (),
    "Minimum": (),
    "Multiply": (),
    "Permute": ("dims",),
    "ReLU": ("max_value", "negative_slope", "threshold"),
    "Rescaling": ("scale", "offset"),
    "Reshape": ("target_shape",),
    "SeparableConv2D": (
        "filters",
        *_CONVOLUTION,
        *_DEPTHWISE,
        *_POINTWISE,
        *_BIAS,
        *_REGULARIZED,
    ),
    "Softmax": ("axis",),
    "SpatialDropout2D": ("rate", "seed", "data_format"),
    "Subtract": (),
    "UpSampling2D": ("size", "data_format", "interpolation"),
    "ZeroPadding2D": ("padding", "data_format"),
}

# Settings that say nothing about the function as long as `FIELDS` are the same. `renorm_*` count
# with renorm only, which is refused; the others are names, or state that is carried otherwise.
_INERT = {"name", "trainable", "dtype", "batch_input_shape", "rng_type", "renorm_momentum"}

_SHARED_ACTIVATIONS = {
    *("elu", "exponential", "gelu", "linear", "relu", "selu", "sigmoid"),
    *("silu", "softmax", "softplus", "softsign", "swish", "tanh"),
}


def is_raw(operation: Any) -> bool:
    """Whether tf_keras calls the operation itself instead of getting a layer of its own."""
    if not isinstance(operation, keras.layers.Layer):
        return True
    return isinstance(operation, keras.layers.Activation) and (
        operation.get_config()["activation"] not in _SHARED_ACTIVATIONS
    )


def equal(layer: Any, library: Any) -> Any:
    """The layer of `library` that computes the same, with weights of its own.

    Raises:
        ValueError: the reason why there is none.
    """
    settings = settings_of(layer)
    for name, value in settings.items():
        if name.endswith(("_regularizer", "_constraint")) and value is not None:
            home = library.regularizers if "regularizer" in name else library.constraints
            settings[name] = getattr(home, value["class_name"])(**value["config"])
    made = getattr(library.layers, type(layer).__name__)(name=layer.name, **settings)
    made.trainable = layer.trainable
    return made


def settings_of(layer: Any) -> dict[str, Any]:
    """The settings that make an equal layer in either library.

    Raises:
        ValueError: the reason why there is none.
    """
    kind = type(layer).__name__
    homes = (getattr(keras.layers, kind, None), getattr(tf_keras.layers, kind, None))
    if kind not in FIELDS or type(layer) not in homes:
        raise ValueError("no layer of the other library is known to do the same")
    if layer.compute_dtype != "float32":
        raise ValueError(f"it computes in {layer.compute_dtype}, not float32")
    config = layer.get_config()
    settings = {name: config[name] for name in FIELDS[kind] if name in config}
    for name, value in config.items():
        inert = name in _INERT or name.endswith("_initializer") or value is None or value is False
        if name not in FIELDS[kind] and not inert and (name, value) != ("groups", 1):
            raise ValueError(f"{name}={value!r} has no equal in the other library")
    activation = settings.get("activation", "linear")
    if activation not in _SHARED_ACTIVATIONS:
        raise ValueError(f"the activation {activation!r} means something else, or nothing, there")
    for name, value in settings.items():
        if isinstance(value, dict) and value.get("class_name") == "__numpy__":
            settings[name] = np.array(value["config"]["value"], value["config"]["dtype"])
        elif isinstance(value, dict) and value.get("registered_name") not in (
            None,
            value["class_name"],
        ):
            raise ValueError(f"{name} is {value['registered_name']}, of neither library")
    if kind == "BatchNormalization" and isinstance(settings["axis"], (list, tuple)):
        (settings["axis"],) = settings["axis"]
    return settings
