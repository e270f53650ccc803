"""Which blocks of a model train, and where what is frozen ends.

    phase   last   trains
    1       0      the head
    2       18     the head and the blocks above the place that is 18 layers below it
    3       ...    more, block by block, down to the pixels

Training starts at a block (`find_blocks`), never inside one. What is frozen computes as in
inference: BatchNormalization by its moving statistics, Dropout not at all.
"""

from __future__ import annotations

import bisect
import inspect
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import keras

from kpipe.errors import TrainingError
from kpipe.keras_internals import context_arguments, set_context_arguments
from kpipe.train.transfer.blocks import Block, find_blocks, places, read_steps

__all__ = ["Unfrozen", "frozen_end", "plan_unfreezing", "unfreeze"]


@dataclass(frozen=True)
class Unfrozen(Sequence[str]):
    """What trains: a sequence of the names of its layers with weights, which tells itself.

    Args:
        names: layers with weights that train, in the order of the model.
        asked: the number of last layers that was asked for; None for all.
        last: how many of the backbone's layers train, so that no block is split.
        layers: how many the backbone has.
        frozen: how many layers with weights are frozen.
    """

    names: tuple[str, ...]
    asked: int | None
    last: int
    layers: int
    frozen: int

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        return self.names[index]

    def __len__(self) -> int:
        return len(self.names)

    def __str__(self) -> str:
        rounded = "" if self.asked in (None, self.last) else f", {self.asked} asked for"
        start = f", from {self.names[0]} on" if self.names else ""
        below = f" and the last {self.last} of {self.layers} layers" if self.last else " alone"
        trains = "train" if self.last else "trains"
        return (
            f"the head{below} {trains}{rounded}: "
            f"{len(self.names)} of {len(self.names) + self.frozen} layers with weights{start}"
        )


def unfreeze(model: keras.Model, last: int | None = None) -> Unfrozen:
    """Lets the head and the last layers of the backbone train, and freezes all others.

    No block is split: training starts at the nearest block (see `find_blocks`) at or below the
    place that is asked for, so that at least `last` layers train.

    What is frozen runs as in inference. A frozen BatchNormalization uses its moving statistics and
    leaves them as they are; a frozen Dropout does nothing, until it is unfrozen or the model is
    saved and loaded. Compile after this call, since Keras reads what trains when it compiles.

    Args:
        model: a model made by `classifier`, or any other functional or Sequential one; models
            nested in it are opened.
        last: how many layers at the end of the backbone train at least, layers without weights
            included; None for all, 0 for the head only.

    Returns:
        What trains; `str()` of it is a sentence.

    Raises:
        TrainingError: `last` is negative or more than the backbone has, or the model has no graph.
    """
    blocks = find_blocks(model)
    start = blocks[_index(blocks, last)].last
    model.trainable = True
    names, frozen = [], 0
    for block in blocks:
        trains = block.last <= start
        for layer in block.layers:
            layer.trainable = trains
            _tell_training(layer, trains)
            if trains and layer.trainable_weights:
                names.append(layer.name)
            frozen += bool(not trains and layer.weights)
    return Unfrozen(tuple(names), last, start, blocks[0].last, frozen)


def plan_unfreezing(model: keras.Model, phases: int, last: int | None = None) -> tuple[int, ...]:
    """The numbers to give to `unfreeze`, phase after phase, from the head downwards.

    Gradual unfreezing (Howard and Ruder 2018, arXiv 1801.06146, section 3.3): the last block is
    the most specific, so it is unfrozen first. The blocks are shared out evenly between phases.

    Args:
        model: as for `unfreeze`.
        phases: how many, 2 or more: the first trains the head alone.
        last: what the last phase trains, as for `unfreeze`; None for the whole backbone.

    Returns:
        `phases` increasing numbers, the first 0, each at a block.

    Raises:
        TrainingError: more phases than blocks, or `last` out of range.
    """
    blocks = find_blocks(model)
    available = len(blocks) - 1 - _index(blocks, last)
    if not 2 <= phases <= available + 1:
        raise TrainingError(
            f"cannot unfreeze {available} blocks in {phases} phases",
            expected=f"2 to {available + 1} phases, the first of which trains the head alone",
            received=str(phases),
        )
    counts = (round(available * phase / (phases - 1)) for phase in range(phases))
    return tuple(blocks[len(blocks) - 1 - count].last for count in counts)


def frozen_end(model: keras.Model) -> keras.KerasTensor:
    """The tensor at which the frozen part of a model ends.

    Args:
        model: a functional model after `unfreeze`.

    Returns:
        The last tensor of the model that stands alone in its graph and that training neither
        changes nor draws: everything that computes it is frozen or has no weights, and is not
        random. The input of the model, where nothing more is frozen. With the head alone in
        training, what the head's first random or trainable layer reads.

    Raises:
        TrainingError: a model without a graph of layers, or of several inputs.
    """
    steps = read_steps(model)
    end = model.inputs[0]
    for step, crossing in zip(steps, places(steps)[1:], strict=True):
        if getattr(step.operation, "trainable_weights", ()) or _draws(step.operation):
            break
        if step.tensor is not None and crossing == step.makes:
            end = step.tensor
    return end


def _index(blocks: tuple[Block, ...], last: int | None) -> int:
    """Which block training starts with."""
    most = blocks[0].last
    if last is None:
        return 0
    try:
        fine = 0 <= operator.index(last) <= most
    except TypeError:
        fine = False
    if not fine:
        raise TrainingError(
            f"cannot unfreeze the last {last} layers of a backbone of {most}",
            expected=f"0 to {most}, or None for all",
            received=repr(last),
        )
    return bisect.bisect_right([-block.last for block in blocks], -last) - 1


def _is_random(operation: Any) -> bool:
    # The state of random seeds is among a layer's variables, but not among its weights.
    return isinstance(operation, keras.layers.Layer) and len(operation.variables) > len(
        operation.weights
    )


def _draws(operation: Any) -> bool:
    return _is_random(operation) and "training" in context_arguments(operation)


def _tell_training(layer: keras.layers.Layer, trains: bool) -> None:
    """Hands `training` on to a random layer that trains, and not to one that is frozen.

    BatchNormalization knows by itself that it is frozen, Dropout does not. A layer that is random
    unless told otherwise augments images, and is left as it is.
    """
    parameter = inspect.signature(layer.call).parameters.get("training")
    if _is_random(layer) and parameter is not None and not parameter.default:
        others = context_arguments(layer) - {"training"}
        set_context_arguments(layer, others | {"training"} if trains else others)
