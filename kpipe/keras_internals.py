"""Every private attribute of Keras that kpipe uses, as found in Keras 3.15 and KerasCV 0.9.

    operation._inbound_nodes          each call of a layer or raw operation: a node
    function._nodes_by_depth          the nodes of a model; greater depths run first
    optimizer._<slot>[index]          one slot per trainable variable, by `_get_variable_index`

No other file of kpipe may use one; those of tf_keras are in `kpipe.sparsity.tf_keras_internals`.
`tests/test_keras_internals.py` names the function to mend when Keras changes an attribute.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import keras
from keras.src.applications.convnext import LayerScale
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer
from keras.src.backend import get_keras_mask as mask_of
from keras.src.models.functional import Functional
from keras.src.ops.numpy import Reshape
from keras.src.saving.keras_saveable import KerasSaveable
from keras.src.saving.serialization_lib import SafeModeScope
from keras.src.utils import file_utils  # keras.applications downloads by its `get_file`

__all__ = [
    "APPLY_WEIGHT_DECAY",
    "UPDATE_MOVING_AVERAGES",
    "CustomScaleLayer",
    "Functional",
    "LayerScale",
    "Reshape",
    "Saveable",
    "accumulated_gradients",
    "binarize_mask",
    "context_arguments",
    "copy_decay_exclusions",
    "decays_weight",
    "file_utils",
    "first_moments",
    "function_of",
    "given_learning_rate",
    "has_decay_exclusions",
    "input_name",
    "input_structure",
    "layers_within",
    "mask_of",
    "moving_averages",
    "nodes_in_order",
    "optimizer_variables",
    "output_structure",
    "outputs_by_call",
    "public_module",
    "sample_mask_field",
    "set_compiled_optimizer",
    "set_context_arguments",
    "set_generator",
    "step_counter",
    "term_of",
    "trusted_deserialization",
    "variable_index",
]

# Methods of an optimizer that kpipe replaces on the instance.
APPLY_WEIGHT_DECAY = "_apply_weight_decay"
UPDATE_MOVING_AVERAGES = "_update_model_variables_moving_average"

_DECAY_EXCLUSIONS = ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern")


def function_of(model: Any) -> keras.Function | None:
    """Return the graph inside a Functional or built Sequential model, else None."""
    function = model._functional if isinstance(model, keras.Sequential) else model
    return function if isinstance(function, keras.Function) else None


def nodes_in_order(function: keras.Function) -> Iterator[Any]:
    """Yield the nodes of a graph in the order in which Keras runs them, input nodes included.

    A node has an `operation`, `input_tensors`, `outputs`, `arguments` (`args`, `kwargs`) and
    `is_input`.
    """
    for depth in sorted(function._nodes_by_depth, reverse=True):
        yield from function._nodes_by_depth[depth]


def input_structure(function: keras.Function) -> Any:
    """Return the inputs of a graph as they are nested in lists and dictionaries."""
    return function._inputs_struct


def output_structure(function: keras.Function) -> Any:
    """Return the outputs of a graph as they are nested in lists and dictionaries."""
    return function._outputs_struct


def input_name(tensor: keras.KerasTensor) -> str:
    """Return the name of the InputLayer that makes a tensor."""
    return tensor._keras_history.operation.name


def outputs_by_call(operation: keras.Operation) -> list[list[keras.KerasTensor]]:
    """Return the outputs of each call of an operation."""
    return [list(node.outputs) for node in operation._inbound_nodes]


def layers_within(layer: keras.Layer, include_self: bool = True) -> list[keras.Layer]:
    """Return a layer or model and all layers inside it, at any depth."""
    return list(layer._flatten_layers(include_self=include_self))


def context_arguments(operation: Any) -> set[str]:
    """Return which arguments, such as "training", a caller hands on; none to a raw operation."""
    return set(getattr(operation, "_call_context_args", ()))


def set_context_arguments(layer: keras.Layer, names: Iterable[str]) -> None:
    """Set the arguments that a caller hands on to a layer."""
    layer._call_context_args = set(names)


def term_of(layer: Any, name: str) -> Any:
    """Return a regularizer or constraint, which MultiHeadAttention keeps as `_<name>`."""
    return getattr(layer, name, getattr(layer, f"_{name}", None))


def trusted_deserialization() -> AbstractContextManager[None]:
    """Let layers be made from the configuration of layers in memory, Python lambdas included."""
    return SafeModeScope(False)


def public_module(cls: type) -> str:
    """Return "layers" or "ops" for a class of Keras, else the name of its module."""
    module = cls.__module__.split(".")
    return module[2] if module[:2] == ["keras", "src"] else cls.__module__


def given_learning_rate(optimizer: keras.optimizers.Optimizer) -> Any:
    """Return a variable, or the schedule or function that the optimizer was made with."""
    return optimizer._learning_rate


def optimizer_variables(optimizer: keras.optimizers.Optimizer) -> list[Any]:
    """Return the variables that a built optimizer trains, in the order of its slots."""
    return list(optimizer._trainable_variables)


def variable_index(optimizer: keras.optimizers.Optimizer, variable: Any) -> int:
    """Return the place of a variable in each of the optimizer's slots."""
    return optimizer._get_variable_index(variable)


def first_moments(adam: keras.optimizers.Adam) -> list[Any]:
    """Return Adam's running averages of the gradients, in the order of its variables."""
    return adam._momentums


def step_counter(optimizer: keras.optimizers.Optimizer) -> Any:
    """Return the counter of batches, of which `iterations` counts accumulation cycles."""
    return optimizer._iterations


def moving_averages(optimizer: keras.optimizers.Optimizer) -> list[Any]:
    """Return the moving average of each variable (`use_ema`)."""
    return optimizer._model_variables_moving_average


def accumulated_gradients(optimizer: keras.optimizers.Optimizer) -> list[Any]:
    """Return the gradient accumulated for each variable (`gradient_accumulation_steps`)."""
    return optimizer._accumulated_gradients


def decays_weight(optimizer: keras.optimizers.Optimizer, variable: Any) -> bool:
    """Return whether weight decay applies to a variable."""
    return optimizer._use_weight_decay(variable)


def has_decay_exclusions(optimizer: Any) -> bool:
    """Return whether `exclude_from_weight_decay` was called."""
    return hasattr(optimizer, _DECAY_EXCLUSIONS[0])


def copy_decay_exclusions(source: Any, target: keras.optimizers.Optimizer) -> None:
    """Exclude the same variables from weight decay; Keras leaves them out of the configuration."""
    for name in _DECAY_EXCLUSIONS:
        if hasattr(source, name):
            setattr(target, name, getattr(source, name))


def set_compiled_optimizer(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Let a saved model name `optimizer` in place of the one that `compile` was given."""
    compiled = model._compile_config
    model._compile_config = type(compiled)(**{**compiled.config, "optimizer": optimizer})


class Saveable(KerasSaveable):  # type: ignore[misc]
    """Base of objects that Keras saves with the model that holds them as an attribute."""

    def _obj_type(self) -> str:
        return "Layer"  # the kind whose attributes Keras saves


def set_generator(layer: Any, generator: Any) -> None:
    """Let a KerasCV layer draw its random numbers from `generator`."""
    layer._random_generator = generator


def sample_mask_field(layer: Any, size: Any) -> Any:
    """Draw the random field (height, width) of a KerasCV FourierMix."""
    return layer._sample_mask_from_transform(layer.decay_power, size)


def binarize_mask(layer: Any, field: Any, fraction: Any, size: Any) -> Any:
    """Set the highest `fraction` of a FourierMix field to 1 and the rest to 0."""
    return layer._binarise_mask(field, fraction, size)
