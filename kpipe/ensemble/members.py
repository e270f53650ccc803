"""The members of an ensemble: what they must have in common, and their copies in one graph.

Members are copied, each as a nested model with a new name ("member_1", ...), so that layers of the
same name do not clash and the originals do not change.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import keras
import numpy as np

from kpipe.errors import TrainingError
from kpipe.keras_copies import copy_model
from kpipe.keras_graph import read_graph, require_graph
from kpipe.keras_internals import input_structure

__all__ = ["check_members", "copy_members", "refuse_without_votes"]

_PROBES = 4  # images
_ANY_SIZE = 224  # pixels of an axis of any size
_SHAPING = {"Dropout", "Flatten", "Identity", "Reshape", "Squeeze"}


def check_members(models: Iterable[keras.Model]) -> list[keras.Model]:
    """Return the members of an ensemble as a list, or raise a TrainingError."""
    if isinstance(models, keras.Model) or not isinstance(models, Iterable):
        raise TrainingError(
            "models= is not a list of members",
            expected="a list of 2 or more models",
            received=type(models).__name__,
        )
    members = list(models)
    if len(members) < 2:
        raise TrainingError(
            "an ensemble needs at least two members",
            expected="2 or more models",
            received=str(len(members)),
        )
    for number, model in enumerate(members, 1):
        if not isinstance(model, keras.Model):
            raise TrainingError(
                f"member {number} of the ensemble is not a model",
                expected="a keras.Model",
                received=repr(model)[:100],
                fix="load a saved model with keras.models.load_model",
            )
        require_graph(model, TrainingError)
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise TrainingError(
                f"member {number} {model.name!r} does not map one input to one output",
                expected="one input, one output",
                received=f"{len(model.inputs)} inputs, {len(model.outputs)} outputs",
                fix="build keras.Model(inputs, output) with the output that counts",
            )
    shapes = [
        f"{tuple(model.inputs[0].shape)} {model.inputs[0].dtype} -> {tuple(model.outputs[0].shape)}"
        + (" logits" if _returns_logits(model) else "")
        for model in members
    ]
    if len(set(shapes)) > 1:
        raise TrainingError(
            "the members of an ensemble do not agree",
            expected="the same input, the same number of classes and the same kind of output",
            received="; ".join(
                f"{number} {model.name!r}: {shape}"
                for number, (model, shape) in enumerate(zip(members, shapes, strict=True), 1)
            ),
            fix="train the members with one image size and one list of classes, and end each of "
            "them in a softmax",
        )
    return members


def copy_members(
    members: Sequence[keras.Model],
) -> tuple[keras.KerasTensor, list[keras.KerasTensor]]:
    """Return one input, and the output that a copy of each member returns for it."""
    given = members[0].inputs[0]
    pixels = keras.Input(given.shape[1:], dtype=given.dtype, name="pixels")
    outputs = []
    for number, model in enumerate(members, 1):
        inputs = keras.tree.pack_sequence_as(
            input_structure(require_graph(model, TrainingError)), [pixels]
        )
        try:
            copied = copy_model(model, TrainingError, name=f"member_{number}")
        except ValueError as problem:
            raise TrainingError(
                f"member {number} {model.name!r} cannot be copied", received=str(problem)
            ) from problem
        outputs += keras.tree.flatten(copied(inputs))
    return pixels, outputs


def refuse_without_votes(members: Sequence[keras.Model]) -> None:
    """Refuse members whose outputs are not probabilities of classes that exclude each other.

    A few random images show it: probabilities are at least 0, and those of a row have a sum of 1.
    """
    shape = [_ANY_SIZE if size is None else size for size in members[0].inputs[0].shape[1:]]
    images = np.random.default_rng(0).integers(0, 256, (_PROBES, *shape))
    images = images.astype(members[0].inputs[0].dtype)
    for number, model in enumerate(members, 1):
        inputs = keras.tree.pack_sequence_as(
            input_structure(require_graph(model, TrainingError)), [images]
        )
        try:
            (outputs,) = keras.tree.flatten(model(inputs, training=False))
        except Exception as problem:  # whatever a custom layer raises
            raise TrainingError(
                f"member {number} {model.name!r} fails on images of the shape {images.shape}",
                received=" ".join(str(problem).split())[:300],
            ) from problem
        outputs = keras.ops.convert_to_numpy(outputs)
        units, sums = outputs.shape[-1], outputs.sum(axis=-1, dtype="float64")
        in_range = outputs.ndim > 1 and bool(((outputs >= 0) & (outputs <= 1.001)).all())
        exclusive = units == 1 or np.allclose(sums, 1, atol=0.02)
        if _returns_logits(model) or not (in_range and exclusive):
            raise TrainingError(
                f"member {number} {model.name!r} has no votes: it does not return probabilities of "
                "classes that exclude each other",
                expected="(batch, classes), each row with a sum of 1, or one unit from 0 to 1",
                received=f"shape {tuple(model.outputs[0].shape)}, {outputs.min():.3g} to "
                f"{outputs.max():.3g}, sums of {sums.min():.3g} to {sums.max():.3g}",
                fix="end logits in a softmax, or one unit in a sigmoid; use average() for several "
                "labels an image",
            )


def _returns_logits(model: keras.Model) -> bool:
    """Return whether a model ends in a layer with weights and no activation."""
    graph = read_graph(model, TrainingError)
    makers = {number: call for call in graph.calls for number in call.outputs}
    call = makers[graph.outputs[0]]
    while call.inputs and (
        type(call.operation).__name__ in _SHAPING
        or (isinstance(call.operation, keras.layers.Activation) and _is_linear(call.operation))
    ):
        call = makers[call.inputs[0]]
    return bool(getattr(call.operation, "weights", ())) and _is_linear(call.operation)


def _is_linear(operation: keras.Operation) -> bool:
    return getattr(operation, "activation", None) is keras.activations.linear
