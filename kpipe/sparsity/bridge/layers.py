"""The layers that Keras 3 and tf_keras share, and how to make one from the other.

    FIELDS = {kind: the settings that define what the layer computes}

A layer can be converted if its kind is listed and all its other settings are neutral.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tf_keras

from kpipe import keras_internals
from kpipe.sparsity import tf_keras_internals

__all__ = ["FIELDS", "convert_layer", "is_called", "settings_of"]

_ACTIVE = ("activation", "use_bias", "activity_regularizer")
_KERNEL = ("kernel_regularizer", "kernel_constraint", "bias_regularizer", "bias_constraint")
_WINDOW = ("kernel_size", "strides", "padding", "data_format", "dilation_rate")
_CONVOLUTION = ("filters", *_WINDOW, *_KERNEL, *_ACTIVE)
_POOLING = ("pool_size", "strides", "padding", "data_format")
_GLOBAL_POOLING = ("data_format", "keepdims")
_AFFINE = ("beta_regularizer", "gamma_regularizer", "beta_constraint", "gamma_constraint")
_NORMALIZATION = ("axis", "epsilon", "center", "scale", *_AFFINE)
_BIAS = ("bias_regularizer", "bias_constraint")
_DEPTHWISE = (
    *_WINDOW,
    *("depth_multiplier", "depthwise_regularizer", "depthwise_constraint"),
    *(*_BIAS, *_ACTIVE),
)
_SEPARABLE = ("filters", *_DEPTHWISE, "pointwise_regularizer", "pointwise_constraint")
_WARPING = ("fill_mode", "interpolation", "seed", "fill_value")


def _each(kind: str, dimensions: str, fields: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    return {kind.format(f"{d}D"): fields for d in dimensions}


# Kinds of layers that compute the same in both libraries, and the settings that define them.
FIELDS: dict[str, tuple[str, ...]] = {
    "Activation": ("activation",),
    "ActivityRegularization": ("l1", "l2"),
    "Add": (),
    "AlphaDropout": ("rate", "noise_shape", "seed"),
    "Average": (),
    **_each("AveragePooling{}", "123", _POOLING),
    "BatchNormalization": ("momentum", *_NORMALIZATION),
    "CenterCrop": ("height", "width"),
    "Concatenate": ("axis",),
    **_each("Conv{}", "123", ("groups", *_CONVOLUTION)),
    **_each("Conv{}Transpose", "123", ("output_padding", *_CONVOLUTION)),
    **_each("Cropping{}", "1", ("cropping",)),
    **_each("Cropping{}", "23", ("cropping", "data_format")),
    "CustomScaleLayer": ("scale",),
    "Dense": ("units", *_KERNEL, *_ACTIVE),
    **_each("DepthwiseConv{}", "12", _DEPTHWISE),
    "Dot": ("axes", "normalize"),
    "Dropout": ("rate", "noise_shape", "seed"),
    "ELU": ("alpha",),
    "EinsumDense": (
        *("equation", "output_shape", "bias_axes"),
        *(*_KERNEL, "activation", "activity_regularizer"),
    ),
    "Flatten": ("data_format",),
    "GaussianDropout": ("rate", "seed"),
    "GaussianNoise": ("stddev", "seed"),
    **_each("GlobalAveragePooling{}", "123", _GLOBAL_POOLING),
    **_each("GlobalMaxPooling{}", "123", _GLOBAL_POOLING),
    "GroupNormalization": ("groups", *_NORMALIZATION),
    "Identity": (),
    "LayerNormalization": _NORMALIZATION,
    "LayerScale": ("init_values", "projection_dim"),
    "LeakyReLU": ("negative_slope",),
    **_each("MaxPooling{}", "123", _POOLING),
    "Maximum": (),
    "Minimum": (),
    "MultiHeadAttention": (
        *("num_heads", "key_dim", "value_dim", "dropout", "use_bias", "output_shape"),
        *("attention_axes", *_KERNEL, "activity_regularizer"),
    ),
    "Multiply": (),
    "Normalization": ("axis", "mean", "variance", "invert"),
    "PReLU": ("alpha_regularizer", "alpha_constraint", "shared_axes"),
    "Permute": ("dims",),
    "RandomFlip": ("mode", "seed"),
    "RandomRotation": ("factor", *_WARPING),
    "RandomTranslation": ("height_factor", "width_factor", *_WARPING),
    "RandomZoom": ("height_factor", "width_factor", *_WARPING),
    "ReLU": ("max_value", "negative_slope", "threshold"),
    "RepeatVector": ("n",),
    "Rescaling": ("scale", "offset"),
    "Reshape": ("target_shape",),
    "Resizing": ("height", "width", "interpolation", "crop_to_aspect_ratio"),
    **_each("SeparableConv{}", "12", _SEPARABLE),
    "Softmax": ("axis",),
    "SpatialDropout1D": ("rate", "seed"),
    **_each("SpatialDropout{}", "23", ("rate", "seed", "data_format")),
    "Subtract": (),
    "UnitNormalization": ("axis",),
    "UpSampling1D": ("size",),
    "UpSampling2D": ("size", "data_format", "interpolation"),
    "UpSampling3D": ("size", "data_format"),
    "ZeroPadding1D": ("padding",),
    **_each("ZeroPadding{}", "23", ("padding", "data_format")),
}

# Layers that keras.applications define for themselves, in either library.
_OF_APPLICATIONS = {
    kind: (getattr(keras_internals, kind), getattr(tf_keras_internals, kind))
    for kind in ("CustomScaleLayer", "LayerScale")
}

# (kind, setting in Keras 3): its name in tf_keras.
_RENAMED = {("LeakyReLU", "negative_slope"): "alpha"}

# Settings that do not affect what a layer computes: names, state that is copied separately, and
# `renorm_*`, which count only with `renorm`, and that is refused.
_INERT = {
    *("name", "trainable", "dtype", "batch_input_shape", "rng_type", "renorm_momentum"),
    *("query_shape", "key_shape", "value_shape"),
}

# Settings that only one library has, with the values at which they have no effect.
_NEUTRAL = {
    ("data_format", "channels_last"),
    ("fill_mode", "constant"),
    ("fill_value", 0.0),
    ("groups", 1),
}

# Keras 3 layers without weights that tf_keras lacks: it calls the Keras 3 layer itself.
_CALLED = tuple(
    getattr(keras.layers, f"Adaptive{kind}Pooling{d}D")
    for kind in ("Average", "Max")
    for d in (1, 2, 3)
)

_INTERPOLATIONS = {"nearest", "bilinear", "bicubic", "lanczos3", "lanczos5"}

_SHARED_ACTIVATIONS = {
    *("elu", "exponential", "gelu", "linear", "relu", "selu", "sigmoid"),
    *("silu", "softmax", "softplus", "softsign", "swish", "tanh"),
}


def is_called(operation: Any) -> bool:
    """Return whether tf_keras calls the Keras 3 operation itself, having no equivalent layer."""
    if not isinstance(operation, keras.layers.Layer):
        return True
    if type(operation) in _CALLED:
        return True
    if not isinstance(operation, keras.layers.Activation):
        return False
    function = operation.activation
    # Keras builds a layer that serves as an activation when it is first called.
    weighted = isinstance(function, keras.Layer) and type(function).build is not keras.Layer.build
    return not weighted and not _is_shared(operation.get_config()["activation"])


def convert_layer(layer: Any, library: Any) -> Any:
    """Return a new layer of `library`, keras or tf_keras, that computes the same.

    Raises:
        ValueError: there is no equivalent layer, for the reason given.
    """
    kind, settings = type(layer).__name__, settings_of(layer)
    for name, value in settings.items():
        if name.endswith(("_regularizer", "_constraint")) and value is not None:
            home = library.regularizers if "regularizer" in name else library.constraints
            settings[name] = getattr(home, value["class_name"])(**value["config"])
    if library is tf_keras:
        settings = {_RENAMED.get((kind, name), name): v for name, v in settings.items()}
    made = _classes(kind)[library is tf_keras](name=layer.name, **settings)
    made.trainable = layer.trainable
    return made


def settings_of(layer: Any) -> dict[str, Any]:
    """Return the settings from which either library makes the same layer.

    Raises:
        ValueError: there is no equivalent layer, for the reason given.
    """
    kind = type(layer).__name__
    if kind not in FIELDS or type(layer) not in _classes(kind):
        raise ValueError("the other library has no equivalent layer")
    if layer.compute_dtype != "float32":
        raise ValueError(f"it computes in {layer.compute_dtype}, not float32")
    config = layer.get_config()
    if isinstance(layer, tf_keras.layers.Layer):
        theirs = {theirs: ours for (of, ours), theirs in _RENAMED.items() if of == kind}
        config = {theirs.get(name, name): value for name, value in config.items()}
    settings = {name: config[name] for name in FIELDS[kind] if name in config}
    for name, value in config.items():
        inert = name in _INERT or name.endswith("_initializer") or value is None or value is False
        neutral = any(name == of and value == default for of, default in _NEUTRAL)
        if name not in FIELDS[kind] and not inert and not neutral:
            raise ValueError(f"{name}={value!r} has no equivalent in the other library")
    if settings.get("interpolation", "nearest") not in _INTERPOLATIONS:
        raise ValueError(f"interpolation={settings['interpolation']!r} is in one library only")
    activation = settings.get("activation", "linear")
    if not _is_shared(activation):
        raise ValueError(
            f"the activation {activation!r} is missing or different in the other library"
        )
    for name, value in settings.items():
        if isinstance(value, dict) and value.get("class_name") == "__numpy__":
            settings[name] = np.array(value["config"]["value"], value["config"]["dtype"])
        elif isinstance(value, dict) and value["class_name"] == "__lambda__":
            raise ValueError(f"{name} is a custom function")
        elif isinstance(value, dict) and value.get("registered_name") not in (
            None,
            value["class_name"],
        ):
            raise ValueError(f"{name} is the custom {value['registered_name']}")
        elif value is not None and name.endswith(("_regularizer", "_constraint")):
            _refuse_unshared_term(layer, name, value["class_name"])
    if kind == "BatchNormalization" and isinstance(settings["axis"], (list, tuple)):
        (settings["axis"],) = settings["axis"]
    return settings


def _refuse_unshared_term(layer: Any, name: str, kind: str) -> None:
    """Refuse a regularizer or constraint whose class only one library has."""
    module = "regularizers" if name.endswith("_regularizer") else "constraints"
    classes = [getattr(getattr(library, module), kind, None) for library in (keras, tf_keras)]
    used = keras_internals.term_of(layer, name)
    if None in classes or type(used) not in classes:
        raise ValueError(
            f"{name} is {kind} of {type(used).__module__}, not a class of both libraries"
        )


def _is_shared(activation: Any) -> bool:
    return isinstance(activation, str) and activation in _SHARED_ACTIVATIONS


def _classes(kind: str) -> tuple[Any, Any]:
    """Return the class in Keras 3 and the class in tf_keras."""
    ours, theirs = getattr(keras.layers, kind, None), getattr(tf_keras.layers, kind, None)
    return _OF_APPLICATIONS.get(kind, (ours, theirs))
