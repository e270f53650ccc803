"""Fine-tuning of the last layers: which blocks of a model train, and where the frozen part ends.

    phase   last   trains
    1       0      the head
    2       18     the head and the blocks of the last 18 layers below it
    3       ...    more blocks, down to the input

Training starts at the beginning of a block (`find_blocks`). Frozen layers compute as in inference:
BatchNormalization with its moving mean and variance, Dropout not at all.
"""

from __future__ import annotations

import bisect
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import keras

from kpipe.errors import TrainingError
from kpipe.keras_internals import context_arguments, layers_within, set_context_arguments
from kpipe.train.transfer.blocks import Block, find_blocks, places, read_calls
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["TrainableLayers", "frozen_output", "plan_unfreezing", "unfreeze"]


@dataclass(frozen=True)
class TrainableLayers(Sequence[str]):
    """The layers that train: a sequence of the names of those with weights.

    Args:
        names: trainable layers with weights, in the order of the model.
        requested: the number of last layers passed to `unfreeze`; None for all.
        last: the number of the backbone's layers that train, such that no block is split.
        backbone_layers: the number of layers in the backbone.
        frozen: the number of frozen layers with weights.

    Example:
        >>> import keras
        >>> from kpipe.train import unfreeze
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 3)),
        ...     keras.layers.Conv2D(4, 3, name="conv"),
        ...     keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(2, activation="softmax", name="head"),
        ... ])
        >>> layers = unfreeze(model, last=0)
        >>> list(layers)
        ['head']
        >>> print(layers)
        the head alone trains: 1 of 2 layers with weights, from head on
    """

    names: tuple[str, ...]
    requested: int | None
    last: int
    backbone_layers: int
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
        rounded = "" if self.requested in (None, self.last) else f", {self.requested} requested"
        start = f", from {self.names[0]} on" if self.names else ""
        of_all = f"{self.last} of {self.backbone_layers}"
        below = f" and the last {of_all} layers" if self.last else " alone"
        trains = "train" if self.last else "trains"
        return (
            f"the head{below} {trains}{rounded}: "
            f"{len(self.names)} of {len(self.names) + self.frozen} layers with weights{start}"
        )


@names_wrong_kinds
def unfreeze(
    model: keras.Model, last: int | None = None, *, freeze_norm: bool = False
) -> TrainableLayers:
    """Make the head and the last layers of the backbone trainable, and freeze all others.

    No block is split: `last` is rounded up to whole blocks (see `find_blocks`).

    Frozen layers run as in inference. A frozen BatchNormalization uses its moving mean and variance
    and does not change them; a frozen Dropout does nothing until it is unfrozen or the model is
    saved and loaded. Compile the model afterwards, since Keras reads what is trainable then.

    Args:
        model: a model from `classifier`, or any other functional or Sequential one, also with
            nested models.
        last: the minimum number of trainable layers at the end of the backbone, counting layers
            without weights; None for all, 0 for the head only.
        freeze_norm: freeze all BatchNormalization layers too. They then keep the moving mean and
            variance of the pretraining, which rest on more photos than a batch holds.

    Returns:
        The trainable layers; `str()` of them is a sentence.

    Raises:
        TrainingError: `last` is out of range, or the model has no graph of layers.

    Example:
        >>> from kpipe.train import backbone, classifier, unfreeze
        >>> base = backbone("MobileNet", image_size=32, weights=None, alpha=0.25)
        >>> layers = unfreeze(classifier(base, classes=3), last=4)
        >>> layers.last, layers[0]
        (6, 'conv_dw_13')
    """
    blocks = find_blocks(model)
    start = blocks[_index(blocks, last)].last
    model.trainable = True
    names, frozen = [], 0
    for block in blocks:
        trains = block.last <= start
        for layer in block.layers:
            layer.trainable = trains
            if freeze_norm:
                _freeze_norm(layer)
            _pass_training(layer, trains)
            if trains and layer.trainable_weights:
                names.append(layer.name)
            frozen += bool(not trains and layer.weights)
    return TrainableLayers(tuple(names), last, start, blocks[0].last, frozen)


@names_wrong_kinds
def plan_unfreezing(model: keras.Model, phases: int, last: int | None = None) -> tuple[int, ...]:
    """Plan gradual unfreezing: the `last` of `unfreeze` for each phase, from the head downwards.

    The last blocks are the most specific to a task, so they are unfrozen first. Each phase
    unfreezes about the same number of blocks.

    Args:
        model: as for `unfreeze`.
        phases: number of phases, at least 2; the first trains the head alone.
        last: the `last` of the final phase; None for the whole backbone.

    Returns:
        Increasing numbers, one for each phase, the first 0, each at the start of a block.

    Raises:
        TrainingError: more phases than blocks, or `last` out of range.

    Source:
        Howard and Ruder 2018, arXiv 1801.06146, section 3.3.

    Example:
        >>> from kpipe.train import backbone, classifier, plan_unfreezing
        >>> base = backbone("MobileNet", image_size=32, weights=None, alpha=0.25)
        >>> plan_unfreezing(classifier(base, classes=3), phases=3, last=20)
        (0, 12, 25)
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


@names_wrong_kinds
def frozen_output(model: keras.Model) -> keras.KerasTensor:
    """Return the tensor at which the frozen part of a model ends.

    Args:
        model: a functional model after `unfreeze`.

    Returns:
        The last tensor that all later layers depend on and that training does not change: all
        layers that compute it are frozen or without weights, and none is random. If only the head
        trains, this is the input of the head's first random or trainable layer; if nothing is
        frozen, the input of the model.

    Raises:
        TrainingError: a model without a graph of layers, or with several inputs.

    Example:
        >>> from kpipe.train import backbone, classifier, frozen_output, unfreeze
        >>> base = backbone("MobileNet", image_size=32, weights=None, alpha=0.25)
        >>> model = classifier(base, classes=3)
        >>> layers = unfreeze(model, last=0)
        >>> frozen_output(model).shape  # after global pooling
        (None, 256)
    """
    steps = read_calls(model)
    end = model.inputs[0]
    for step, crossing in zip(steps, places(steps)[1:], strict=True):
        if getattr(step.operation, "trainable_weights", ()) or _draws(step.operation):
            break
        if step.tensor is not None and crossing == step.makes:
            end = step.tensor
    return end


def _index(blocks: tuple[Block, ...], last: int | None) -> int:
    """Return the index of the first block to train."""
    most = blocks[0].last
    if last is None:
        return 0
    if not 0 <= last <= most:
        raise TrainingError(
            f"cannot unfreeze the last {last} layers of a backbone of {most}",
            expected=f"0 to {most}, or None for all",
            received=repr(last),
        )
    return bisect.bisect_right([-block.last for block in blocks], -last) - 1


def _is_random(operation: Any) -> bool:
    # A layer's variables include the state of its random seeds, its weights do not.
    return isinstance(operation, keras.layers.Layer) and len(operation.variables) > len(
        operation.weights
    )


def _draws(operation: Any) -> bool:
    return _is_random(operation) and "training" in context_arguments(operation)


def _freeze_norm(layer: keras.layers.Layer) -> None:
    for inner in layers_within(layer):
        if isinstance(inner, keras.layers.BatchNormalization):
            inner.trainable = False


def _pass_training(layer: keras.layers.Layer, trains: bool) -> None:
    """Make Keras pass `training` to a random layer if it trains, and not if it is frozen.

    BatchNormalization handles being frozen itself, Dropout does not. A layer whose `training`
    defaults to True augments images, and does not change.
    """
    parameter = inspect.signature(layer.call).parameters.get("training")
    if _is_random(layer) and parameter is not None and not parameter.default:
        others = context_arguments(layer) - {"training"}
        set_context_arguments(layer, others | {"training"} if trains else others)
