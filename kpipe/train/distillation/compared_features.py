"""The features of student and teacher that distillation compares.

features := input of a layer (batch, ..., features), averaged over the axes in between
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import keras
import numpy as np

from kpipe.errors import TrainingError
from kpipe.train.transfer.blocks import OperationCall, read_calls

__all__ = ["MOST_PHOTOS", "averaged", "last_outputs", "with_features"]

MOST_PHOTOS = 10_000  # in a sample; an endless one has more


def with_features(model: keras.Model, features: float, layer: str | None, role: str) -> keras.Model:
    """Build images -> predictions and, if features count, the input of the layer."""
    if not features:
        return keras.Model(model.inputs[0], [model.outputs[0]])
    return keras.Model(model.inputs[0], [model.outputs[0], _features(model, layer, role)])


def _features(model: keras.Model, name: str | None, role: str) -> keras.KerasTensor:
    """Return the tensor (batch, ..., features) in the graph of the model."""
    steps = read_calls(model)
    fix = "name another layer, or set feature_weight=0"

    def matches(step: OperationCall) -> bool:
        if name is None:
            return isinstance(step.operation, keras.layers.Dense)
        return step.operation.name == name

    indices = [index for index, step in enumerate(steps) if matches(step)]
    if not indices or (name is None and any(step.weighted for step in steps[indices[-1] + 1 :])):
        wanted = "Dense layer at its end" if name is None else f"layer {name!r} in its graph"
        raise TrainingError(
            f"the {role} has no {wanted}",
            expected="layer=, the name of a layer whose input is features",
            received=", ".join(str(step.operation.name) for step in steps[-5:]) + " at its end",
            fix=fix,
        )
    found = steps[indices[-1]]
    makers = {number: step for step in steps for number in step.makes}
    before = makers[found.reads[0]] if found.reads else found
    while isinstance(before.operation, keras.layers.Dropout):
        before = makers[before.reads[0]]
    tensor = before.tensor
    if len(found.reads) != 1 or len(before.makes) != 1 or tensor is None or len(tensor.shape) < 2:
        raise TrainingError(
            f"the input of {found.operation.name!r} in the {role} cannot be compared",
            expected="one tensor (batch, ..., features) outside of nested models",
            received=f"{len(found.reads)} tensors, from {before.operation.name!r}",
            fix=fix,
        )
    return tensor


def last_outputs(
    sample: Iterable[Any], student: keras.Model, *others: Callable[[Any], Any]
) -> list[np.ndarray]:
    """Return the last output of each model for all images, averaged to (photos, features)."""
    models: list[Callable[[Any], Any]] = [partial(student, training=False), *others]
    rank = len(student.inputs[0].shape)
    rows: list[list[np.ndarray]] = []
    photos = 0
    for batch in sample:
        images = batch[0] if isinstance(batch, tuple | list) else batch
        shape = tuple(getattr(images, "shape", ()))
        if len(shape) != rank:
            raise TrainingError(
                "the sample does not consist of batches",
                expected=f"images with {rank} axes, or tuples that begin with them",
                received=f"shape {shape}",
                fix="pass batches.take(50), or [images]",
            )
        # One batch may be larger: it shows that the sample is not endless.
        if photos and photos + len(images) > MOST_PHOTOS:
            raise TrainingError(
                "the sample is too large, or endless",
                expected=f"a few hundred photos, at most {MOST_PHOTOS}",
                fix="pass batches.take(50)",
            )
        photos += len(images)
        outputs = [keras.tree.flatten(model(images)) for model in models]
        for predictions, *_ in outputs:
            _check_probabilities(keras.ops.convert_to_numpy(keras.ops.cast(predictions, "float32")))
        last = (keras.ops.cast(averaged(found[-1]), "float32") for found in outputs)
        rows.append([keras.ops.convert_to_numpy(x) for x in last])
    if photos < 2:
        raise TrainingError(
            "the sample is too small", expected="a few hundred photos", received=str(photos)
        )
    return [np.concatenate(side) for side in zip(*rows, strict=True)]


def _check_probabilities(outputs: np.ndarray) -> None:
    """Raise a TrainingError unless outputs (..., classes) are probabilities."""
    sums = outputs.sum(axis=-1)
    if outputs.shape[-1] > 1 and (outputs >= 0).all() and np.allclose(sums, 1, atol=0.02):
        return
    raise TrainingError(
        "student and teacher must return probabilities, as from a softmax",
        expected="2 classes or more, each 0 or more, with a sum of 1",
        received=f"{outputs.shape[-1]} classes, {outputs.min():.3g} to {outputs.max():.3g}, "
        f"sums of {sums.min():.3g} to {sums.max():.3g}",
        fix="end both in a softmax, and look for broken images in the sample",
    )


def averaged(maps: Any) -> Any:
    """Average (batch, ..., features) to (batch, features)."""
    axes = tuple(range(1, len(maps.shape) - 1))
    return keras.ops.mean(maps, axis=axes) if axes else maps
