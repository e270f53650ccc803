"""The members of an ensemble: what they must have in common.

member := photos (batch, height, width, 3) -> outputs (batch, classes)
          one input and one output; the same classes and kind of output in all members;
          the same input, or images of the same proportions and another size
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import keras
import numpy as np

from kpipe.errors import TrainingError
from kpipe.finite_weights import refuse_non_finite_weights
from kpipe.keras_graph import read_graph, require_graph
from kpipe.keras_internals import input_structure

__all__ = ["check_members", "entry_shape", "refuse_non_finite", "refuse_not_exclusive"]

_PROBES = 4  # images
_ANY_SIZE = 224  # pixels of an axis of any size
_SHAPING = {"Dropout", "Flatten", "Identity", "Reshape", "Squeeze"}
_ENDINGS = {"softmax": keras.activations.softmax, "sigmoid": keras.activations.sigmoid}


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
        + _ending(model)
        for model in members
    ]
    kinds, endings = {_kind(model) for model in members}, {_ending(model) for model in members}
    # "" may be any activation, but no logits.
    mixed = len(endings if " logits" in endings else endings - {""}) > 1
    if len(kinds) > 1 or mixed or not _same_proportions(members):
        raise TrainingError(
            "the members of an ensemble do not agree",
            expected="the same input or images of another size with the same proportions, the same "
            "number of classes and the same kind of output",
            received="; ".join(
                f"{number} {model.name!r}: {shape}"
                for number, (model, shape) in enumerate(zip(members, shapes, strict=True), 1)
            ),
            fix="train the members with one list of classes, and end each of them in a softmax",
        )
    return members


def entry_shape(members: Sequence[keras.Model]) -> tuple[int | None, ...]:
    """Return the shape of the images that the ensemble takes, without the batch axis.

    Their size is that of the largest member.
    """
    shapes = [tuple(model.inputs[0].shape[1:]) for model in members]
    if len(shapes[0]) != 3:
        return shapes[0]
    height, width = (max((s[axis] for s in shapes if s[axis]), default=None) for axis in (0, 1))
    return height, width, shapes[0][2]


def refuse_non_finite(members: Sequence[keras.Model]) -> None:
    """Refuse members with weights that are NaN or infinite."""
    for number, model in enumerate(members, 1):
        try:
            refuse_non_finite_weights(model, TrainingError)
        except TrainingError as error:
            error.what = f"member {number} of the ensemble: {error.what}"
            raise


def refuse_not_exclusive(members: Sequence[keras.Model], problem: str) -> None:
    """Refuse members whose outputs are not probabilities of classes that exclude each other.

    A few random images show it: probabilities are at least 0, and those of a row have a sum of 1.

    Args:
        members: from `check_members`.
        problem: what such a member lacks, for the error, such as "has no votes".
    """
    for number, model in enumerate(members, 1):
        shape = [_ANY_SIZE if size is None else size for size in model.inputs[0].shape[1:]]
        images = np.random.default_rng(0).integers(0, 256, (_PROBES, *shape))
        images = images.astype(model.inputs[0].dtype)
        inputs = keras.tree.pack_sequence_as(
            input_structure(require_graph(model, TrainingError)), [images]
        )
        try:
            (outputs,) = keras.tree.flatten(model(inputs, training=False))
        except Exception as error:  # whatever a custom layer raises
            raise TrainingError(
                f"member {number} {model.name!r} fails on images of the shape {images.shape}",
                received=" ".join(str(error).split())[:300],
            ) from error
        outputs = keras.ops.convert_to_numpy(outputs)
        units, sums = outputs.shape[-1], outputs.sum(axis=-1, dtype="float64")
        in_range = outputs.ndim > 1 and bool(((outputs >= 0) & (outputs <= 1.001)).all())
        exclusive = units == 1 or np.allclose(sums, 1, atol=0.02)
        if _ending(model) == " logits" or not (in_range and exclusive):
            raise TrainingError(
                f"member {number} {model.name!r} {problem}: it does not return probabilities of "
                "classes that exclude each other",
                expected="(batch, classes), each row with a sum of 1, or one unit from 0 to 1",
                received=f"shape {tuple(model.outputs[0].shape)}, {outputs.min():.3g} to "
                f"{outputs.max():.3g}, sums of {sums.min():.3g} to {sums.max():.3g}",
                fix="end logits in a softmax, or one unit in a sigmoid; use average() for several "
                "labels an image",
            )


def _kind(model: keras.Model) -> tuple[object, ...]:
    """Return what all members have in common."""
    given, made = model.inputs[0], model.outputs[0]
    shape = tuple(given.shape)
    size = shape[-1:] if len(shape) == 4 else shape
    return len(shape), size, given.dtype, tuple(made.shape)


def _same_proportions(members: Sequence[keras.Model]) -> bool:
    """Whether a photo of the largest member's size can be resized to the sizes of all."""
    height, width, *_ = (*entry_shape(members), None)
    sizes = [model.inputs[0].shape[1:3] for model in members if len(model.inputs[0].shape) == 4]
    return all(
        None in (h, w, height, width) or h * width == w * height  # type: ignore[operator]
        for h, w in sizes
    )


def _ending(model: keras.Model) -> str:
    """Return " softmax", " sigmoid", " logits" for a last layer of weights alone, or nothing."""
    graph = read_graph(model, TrainingError)
    makers = {number: call for call in graph.calls for number in call.outputs}
    call = makers[graph.outputs[0]]
    while call.inputs and (
        type(call.operation).__name__ in _SHAPING
        or (isinstance(call.operation, keras.layers.Activation) and _is_linear(call.operation))
    ):
        call = makers[call.inputs[0]]
    activation = getattr(call.operation, "activation", None)
    for name, function in _ENDINGS.items():
        if activation is function or type(call.operation).__name__.lower() == name:
            return f" {name}"
    weighted = bool(getattr(call.operation, "weights", ()))
    return " logits" if weighted and _is_linear(call.operation) else ""


def _is_linear(operation: keras.Operation) -> bool:
    return getattr(operation, "activation", None) is keras.activations.linear
