"""Copies of the members in one graph, each of which takes the same photo.

photo (at the size of the largest member) -> [resized] -> copy of member -> [classes reordered]

resized := bilinear, after the mean of blocks of k x k pixels for a member whose size is less than
           1/k of the photo's, k >= 2. TFLite has no operation for antialiasing: without the means,
           a photo at half its size or less would show false patterns.

Copies are nested models with new names ("member_1", ...), so that layers of the same name do not
clash and the originals do not change.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras

from kpipe.ensemble.members import entry_shape
from kpipe.errors import TrainingError
from kpipe.keras_copies import copy_model
from kpipe.keras_graph import require_graph
from kpipe.keras_internals import input_structure
from kpipe.printable import quoted

__all__ = ["class_orders", "join_members"]


def class_orders(
    members: Sequence[keras.Model], classes: Sequence[Sequence[str]] | None
) -> list[list[int]]:
    """Return, for each member, which of its outputs is the first member's class 0, 1, ...

    Args:
        members: from `check_members`.
        classes: the class names of each member, in the order of its outputs; None if all members
            have the same order.

    Raises:
        TrainingError: members of other classes, repeated names, or the wrong number of them.
    """
    units = members[0].outputs[0].shape[-1]
    if classes is None:
        return [list(range(units))] * len(members)
    lists = [list(names) for names in classes]
    if [len(names) for names in lists] != [units] * len(members) or any(
        len(set(names)) < len(names) for names in lists
    ):
        raise TrainingError(
            "classes= does not fit the members",
            expected=f"{len(members)} lists of {units} different names, one list for each member",
            received="; ".join(quoted(names) for names in lists),
        )
    for number, names in enumerate(lists, 1):
        if set(names) != set(lists[0]):
            missing, unknown = set(lists[0]) - set(names), set(names) - set(lists[0])
            raise TrainingError(
                f"member {number} of the ensemble has other classes than member 1",
                expected=f"the classes {quoted(lists[0])}, in any order",
                received=f"without {quoted(sorted(missing))}, but with {quoted(sorted(unknown))}",
                fix="train all members with the same classes",
            )
    return [[names.index(name) for name in lists[0]] for names in lists]


def join_members(
    members: Sequence[keras.Model], orders: Sequence[list[int]]
) -> tuple[keras.KerasTensor, list[keras.KerasTensor]]:
    """Return one input, and the output that a copy of each member returns for it.

    Args:
        members: from `check_members`.
        orders: from `class_orders`.

    Raises:
        TrainingError: a member cannot be copied.
    """
    pixels = keras.Input(entry_shape(members), dtype=members[0].inputs[0].dtype, name="pixels")
    outputs = []
    for number, (model, order) in enumerate(zip(members, orders, strict=True), 1):
        resized = _resize(pixels, tuple(model.inputs[0].shape), number)
        inputs = keras.tree.pack_sequence_as(
            input_structure(require_graph(model, TrainingError)), [resized]
        )
        try:
            copied = copy_model(model, TrainingError, name=f"member_{number}")
        except ValueError as problem:
            raise TrainingError(
                f"member {number} {model.name!r} cannot be copied", received=str(problem)
            ) from problem
        (output,) = keras.tree.flatten(copied(inputs))
        if order != sorted(order):
            output = keras.ops.take(output, order, axis=-1)
        outputs.append(output)
    return pixels, outputs


def _resize(
    pixels: keras.KerasTensor, shape: tuple[int | None, ...], number: int
) -> keras.KerasTensor:
    """Return the pixels at the size of a member's input of this shape, with the same dtype."""
    if shape[1:] == tuple(pixels.shape[1:]) or None in shape[1:3]:
        return pixels
    height, width = shape[1:3]
    images = keras.ops.cast(pixels, "float32") if pixels.dtype != "float32" else pixels
    block = int(pixels.shape[1]) // height  # type: ignore[operator]
    if block > 1:
        images = keras.layers.AveragePooling2D(block, padding="same", name=f"blocks_{number}")(
            images
        )
    if images.shape[1:3] != (height, width):
        images = keras.layers.Resizing(height, width, name=f"resized_{number}")(images)
    if pixels.dtype == "float32":
        return images
    rounded = keras.ops.round(images) if "int" in pixels.dtype else images
    return keras.ops.cast(rounded, pixels.dtype)
