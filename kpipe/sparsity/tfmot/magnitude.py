"""Magnitude pruning by TFMOT: during training the smallest weights of a layer become zeros.

    polynomial   share of zeros at step t = s - s * (1 - t / T)^3     (Zhu and Gupta 2017,
                 arXiv:1710.01878), T the end of the ramp; after T the masks stay
    constant     share of zeros = s from a step on, the masks chosen anew until the end
    m by n       m zeros among every n weights in a row along the input channels, once and for all

with s the sparsity asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import tf_keras

from kpipe.errors import SparsityError, nearest
from kpipe.sparsity.bridge.mapping import leaves
from kpipe.sparsity.bridge.twins import to_keras, to_tf_keras
from kpipe.sparsity.tfmot.loading import tfmot
from kpipe.sparsity.tfmot.settings import TrainingSettings, check_training, is_count, refuse_wrong
from kpipe.sparsity.tfmot.training import (
    KERNELS,
    Batches,
    train,
    wrapped,
)

__all__ = ["ConstantSparsity", "PolynomialSparsity", "measure_sparsity", "prune_magnitude"]


@dataclass(frozen=True)
class PolynomialSparsity:
    """More and more zeros.

    Attributes:
        ramp: share of all steps after which the sparsity is reached, above 0 and at most 1.
        updates: how often the masks are chosen anew on the way, at most.
    """

    ramp: float = 0.7
    updates: int = 20

    def of(self, sparsity: float, steps: int) -> Any:
        """TFMOT's schedule, ending on a step where it really acts: a multiple of its frequency."""
        ramp = max(1, int(steps * self.ramp))
        frequency = max(1, ramp // self.updates)
        return tfmot.sparsity.keras.PolynomialDecay(
            initial_sparsity=0.0,
            final_sparsity=sparsity,
            begin_step=0,
            end_step=ramp - ramp % frequency,
            frequency=frequency,
        )


@dataclass(frozen=True)
class ConstantSparsity:
    """All zeros at once.

    Attributes:
        begin: share of all steps after which they come, from 0 to below 1.
        updates: how often the masks are chosen anew from then on, at most.
    """

    begin: float = 0.0
    updates: int = 20

    def of(self, sparsity: float, steps: int) -> Any:
        """TFMOT's schedule."""
        begin = min(int(steps * self.begin), steps - 1)
        frequency = max(1, (steps - begin) // self.updates)
        return tfmot.sparsity.keras.ConstantSparsity(sparsity, begin, frequency=frequency)


SparsitySchedule = PolynomialSparsity | ConstantSparsity
_SCHEDULES: dict[str, SparsitySchedule] = {
    "polynomial": PolynomialSparsity(),
    "constant": ConstantSparsity(),
}
_DEFAULTS = TrainingSettings()


def prune_magnitude(
    model: keras.Model,
    data: Batches,
    *,
    sparsity: float | None = None,
    epochs: int,
    steps_per_epoch: int,
    schedule: str | SparsitySchedule = "polynomial",
    m_by_n: tuple[int, int] | None = None,
    block_size: tuple[int, int] = (1, 1),
    settings: TrainingSettings = _DEFAULTS,
    folder: str | os.PathLike[str] | None = None,
) -> keras.Model:
    """Train a classifier while TFMOT sets the smallest weights to zero.

    The kernels of trainable Conv2D and Dense layers get the share of zeros asked for, each layer
    on its own. Depthwise kernels are left alone: they are few, and hurt most. Frozen layers are
    neither trained nor pruned, since they could not recover: unfreeze what shall be pruned.

    Args:
        model: a functional or Sequential Keras 3 classifier ending in softmax. It is not changed.
        data: a function of the first epoch that gives an endless dataset of (images float32
            (batch, height, width, 3) in [0, 255], labels: integers (batch,) or shares of the
            classes, float32 (batch, classes)), and weights (batch,) if need be; or one dataset,
            which is repeated.
        sparsity: share of zeros, between 0 and 1; left out with `m_by_n`, which says it.
        epochs: how many.
        steps_per_epoch: batches in each.
        schedule: "polynomial", "constant", or one of these with settings of its own.
        m_by_n: (2, 4) for two zeros in every four weights along the input channels, a pattern
            that some hardware makes use of; None for zeros anywhere. Masks are chosen once, after
            the first step, whatever the schedule. Kernels of n - m inputs or fewer stay dense.
        block_size: (inputs, outputs) of the rectangles that become zero as a whole. TFMOT has
            blocks for Dense kernels of at least two blocks along either side only: with other
            than (1, 1), convolutions and narrower kernels stay dense.
        settings: how to train.
        folder: keeps a checkpoint after each epoch, and continues from the last one there.

    Returns:
        A Keras 3 model with the same layers and names, whose zeros are where TFMOT put them.
        Train it further with `KeepZeros` among the callbacks.

    Raises:
        SparsityError: numbers out of range, nothing to prune, layers that tf_keras does not have,
            a loss that is not finite, data that ends too soon, or a folder of another training.
    """
    ramp = _schedule(schedule)
    share = _share(sparsity, m_by_n, block_size, ramp)
    check_training(epochs, steps_per_epoch, settings)
    block_size = (block_size[0], block_size[1])  # of a list, too
    kinds = KERNELS if block_size == (1, 1) else (tf_keras.layers.Dense,)

    def masked(layer: Any) -> Any | None:
        if type(layer) not in kinds or not layer.trainable:
            return None
        if m_by_n is not None and layer.kernel.shape[-2] <= m_by_n[1] - m_by_n[0]:
            return None  # too few inputs for a row of n to hold a zero
        if block_size != (1, 1) and not all(np.greater(layer.kernel.shape, block_size)):
            return None
        return tfmot.sparsity.keras.prune_low_magnitude(
            layer,
            pruning_schedule=ramp.of(share, epochs * steps_per_epoch),
            block_size=block_size,
            sparsity_m_by_n=m_by_n,
        )

    twin, pruned = wrapped(to_tf_keras(model), masked, settings.seed)
    if not pruned:
        raise SparsityError(
            f"nothing to prune in {model.name!r}",
            expected="at least one trainable Conv2D or Dense layer; blocks want a Dense one",
            fix="set layer.trainable = True on the layers to prune",
        )
    train(
        twin,
        data,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        settings=settings,
        folder=folder,
        source=model,
        what={
            "sparsity": share,
            "schedule": {type(ramp).__name__: asdict(ramp)},
            "m_by_n": list(m_by_n) if m_by_n else None,
            "block_size": list(block_size),
        },
        callbacks=[tfmot.sparsity.keras.UpdatePruningStep()],
    )
    result = to_keras(tfmot.sparsity.keras.strip_pruning(twin), template=model)
    _refuse_too_dense(result, pruned, share, m_by_n, block_size)
    return result


def measure_sparsity(model: keras.Model) -> dict[str, float]:
    """The share of zeros in each layer's kernel.

    Args:
        model: a Keras 3 model.

    Returns:
        {path of the layer: share of zeros}, nested models included.
    """
    shares = {}
    for path, layer in leaves(model):
        kernels = [weight.numpy().ravel() for weight in layer.weights if "kernel" in weight.name]
        if kernels:
            shares[path] = float(np.mean(np.concatenate(kernels) == 0))
    return shares


def _schedule(schedule: str | SparsitySchedule) -> SparsitySchedule:
    if isinstance(schedule, SparsitySchedule):
        return schedule
    if not isinstance(schedule, str) or schedule not in _SCHEDULES:
        raise SparsityError(
            f"unknown schedule {schedule!r}", fix=nearest(str(schedule), _SCHEDULES)
        )
    return _SCHEDULES[schedule]


def _share(
    sparsity: float | None,
    m_by_n: tuple[int, int] | None,
    block_size: tuple[int, int],
    ramp: SparsitySchedule,
) -> float:
    """The share of zeros asked for, after a look at the numbers."""
    if (sparsity is None) == (m_by_n is None):
        raise SparsityError(
            "it is not clear how many zeros there shall be",
            expected="either sparsity= or m_by_n=",
            received=f"sparsity={sparsity}, m_by_n={m_by_n}",
        )
    values: dict[str, tuple[Any, Callable[[Any], bool]]]
    if isinstance(ramp, PolynomialSparsity):
        values = {"ramp": (ramp.ramp, lambda share: 0 < share <= 1)}
    else:
        values = {"begin": (ramp.begin, lambda share: 0 <= share < 1)}
    values["updates"] = (ramp.updates, is_count)
    values["block_size"] = (block_size, _is_block)
    if m_by_n is None:
        values["sparsity"] = (sparsity, lambda share: 0 < share < 1)
    else:
        values["m_by_n"] = (m_by_n, partial(_is_pattern, block_size))
    refuse_wrong(
        values,
        "sparsity between 0 and 1, ramp above 0 and at most 1, begin from 0 to below 1, updates of "
        "1 or more, m_by_n=(2, 4) with m below n and no blocks, block_size of two whole numbers",
    )
    if m_by_n is not None:
        return m_by_n[0] / m_by_n[1]
    assert sparsity is not None
    return sparsity


def _is_block(block_size: tuple[int, int]) -> bool:
    height, width = block_size
    return is_count(height) and is_count(width)


def _is_pattern(block_size: tuple[int, int], m_by_n: tuple[int, int]) -> bool:
    zeros, length = m_by_n
    return is_count(zeros) and is_count(length) and zeros < length and tuple(block_size) == (1, 1)


def _refuse_too_dense(
    model: keras.Model,
    pruned: list[str],
    share: float,
    m_by_n: tuple[int, int] | None,
    block_size: tuple[int, int],
) -> None:
    """The last mask must have been applied; equal magnitudes and rounding may cost a little."""
    dense = []
    for path, layer in leaves(model):
        if path in pruned:
            zero = layer.kernel.numpy() == 0
            found = _blocks(zero, m_by_n, block_size)
            if found < (1.0 if m_by_n else share - max(0.1, 1 / zero.size)):
                dense.append(f"{path} ({zero.mean():.3f})")
    if dense:
        raise SparsityError(
            f"layers did not reach a sparsity of {share}: " + ", ".join(dense),
            fix="train for more steps",
        )


def _blocks(zero: np.ndarray, m_by_n: tuple[int, int] | None, block: tuple[int, int]) -> float:
    """Share of the blocks that are zero, or of the rows of n that hold m zeros."""
    if m_by_n is not None:
        zeros, length = m_by_n
        rows = np.moveaxis(zero, -2, -1)
        beyond = [(0, 0)] * (rows.ndim - 1) + [(0, -rows.shape[-1] % length)]
        rows = np.pad(rows, beyond, constant_values=True).reshape(-1, length)
        return float(np.mean(rows.sum(-1) >= zeros))
    if block == (1, 1):
        return float(zero.mean())
    height, width = block
    padded = np.pad(zero, [(0, -zero.shape[0] % height), (0, -zero.shape[1] % width)], mode="edge")
    grid = padded.reshape(padded.shape[0] // height, height, padded.shape[1] // width, width)
    return float(grid.all(axis=(1, 3)).mean())
