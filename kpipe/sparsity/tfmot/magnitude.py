"""Magnitude pruning by TFMOT: the smallest weights of a layer become zero during training."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

import keras

from kpipe.errors import SparsityError
from kpipe.sparsity.bridge.mapping import leaves
from kpipe.sparsity.bridge.twins import to_keras, to_tf_keras
from kpipe.sparsity.tfmot.batches import Batches
from kpipe.sparsity.tfmot.loading import tfmot
from kpipe.sparsity.tfmot.sparsity_schedules import (
    SCHEDULES,
    PolynomialSparsity,
    SparsitySchedule,
)
from kpipe.sparsity.tfmot.training import train
from kpipe.sparsity.tfmot.training_settings import (
    TrainingJob,
    TrainingSettings,
    refuse_invalid,
    refuse_unknown,
)
from kpipe.sparsity.tfmot.wrapping import wrap_layers
from kpipe.sparsity.tfmot.zero_pattern import ZeroPattern
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["prune_magnitude"]

_DEFAULTS = TrainingSettings()


@names_wrong_kinds
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

    Each trainable Conv2D and Dense kernel is pruned to the sparsity. Depthwise kernels are not
    pruned: they have few weights, and zeros in them cost the most accuracy. Frozen layers are
    neither trained nor pruned, since they could not recover: unfreeze the layers to prune.

    Args:
        model: a functional or Sequential Keras 3 classifier with a softmax output; it is not
            changed.
        data: a function of the first epoch that returns an endless dataset of images float32
            (batch, height, width, 3) in [0, 255], labels (integers (batch,) or class fractions,
            float32 (batch, classes)), and optional weights (batch,); or one finite dataset, which
            is repeated.
        sparsity: fraction of zeros, in (0, 1); omit with `m_by_n`, which implies it.
        epochs: number of epochs.
        steps_per_epoch: batches in each epoch.
        schedule: "polynomial", "constant", a `PolynomialSparsity` or a `ConstantSparsity`.
        m_by_n: (2, 4) for two zeros in every four weights along the input channels, a pattern
            that some hardware uses; None for zeros anywhere. Masks are set once, after the first
            step, whatever the schedule. Kernels of n - m inputs or fewer stay dense.
        block_size: (inputs, outputs) of rectangles that become zero as a whole. TFMOT supports
            blocks only in Dense kernels of at least two blocks along each side: with other values
            than (1, 1), convolutions and narrower kernels stay dense.
        settings: how to train.
        folder: for a checkpoint after each epoch, from which an interrupted training resumes.

    Returns:
        A Keras 3 model with the same layers and names, and with the zeros. Train it further with
        `KeepZeros` among the callbacks.

    Raises:
        SparsityError: for values out of range, nothing to prune, layers that tf_keras does not
            have, a loss that is not finite, data that ends too early, or a folder of another
            training run.

    Source:
        Zhu and Gupta 2017, "To prune, or not to prune", arXiv:1710.01878.

    Example:
        >>> import keras, numpy as np, tensorflow as tf
        >>> from kpipe.sparsity import measure_sparsity, prune_magnitude
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(),
        ...     keras.layers.Dense(2, activation="softmax", name="top")])
        >>> data = tf.data.Dataset.from_tensors((np.zeros((4, 8, 8, 3), "float32"), [0, 1, 0, 1]))
        >>> sparse = prune_magnitude(model, data, sparsity=0.5, epochs=1, steps_per_epoch=2)
        >>> measure_sparsity(sparse)
        {'top': 0.5}
    """
    chosen = _choose_schedule(schedule)
    pattern = ZeroPattern(sparsity, m_by_n, (block_size[0], block_size[1]))
    job = TrainingJob(epochs, steps_per_epoch, settings, folder)

    def prunable(layer: Any) -> Any | None:
        if not layer.trainable or not pattern.fits(layer):
            return None
        return tfmot.sparsity.keras.prune_low_magnitude(
            layer,
            pruning_schedule=chosen.to_tfmot(pattern.fraction, job.steps),
            block_size=pattern.block_size,
            sparsity_m_by_n=m_by_n,
        )

    twin, pruned = wrap_layers(to_tf_keras(model), prunable, settings.seed)
    if not pruned:
        raise SparsityError(
            f"nothing to prune in {model.name!r}",
            expected="at least one trainable Conv2D or Dense layer, for blocks a Dense layer",
            fix="set layer.trainable = True on the layers to prune",
        )
    train(
        twin,
        data,
        job,
        source=model,
        method={
            "sparsity": pattern.fraction,
            "schedule": {type(chosen).__name__: asdict(chosen)},
            "m_by_n": list(m_by_n) if m_by_n else None,
            "block_size": list(block_size),
        },
        callbacks=[tfmot.sparsity.keras.UpdatePruningStep()],
    )
    result = to_keras(tfmot.sparsity.keras.strip_pruning(twin), template=model)
    _refuse_dense_kernels(result, pruned, pattern)
    return result


def _choose_schedule(schedule: str | SparsitySchedule) -> SparsitySchedule:
    if isinstance(schedule, str):
        refuse_unknown("schedule", schedule, SCHEDULES)
        return SCHEDULES[schedule]
    if isinstance(schedule, PolynomialSparsity):
        valid = {f"ramp={schedule.ramp!r}": 0 < schedule.ramp <= 1}
    else:
        valid = {f"begin={schedule.begin!r}": 0 <= schedule.begin < 1}
    valid[f"updates={schedule.updates!r}"] = schedule.updates >= 1
    refuse_invalid(valid, expected="ramp in (0, 1], begin in [0, 1), updates of 1 or more")
    return schedule


def _refuse_dense_kernels(model: keras.Model, pruned: list[str], pattern: ZeroPattern) -> None:
    kernels = {path: layer.kernel.numpy() for path, layer in leaves(model) if path in pruned}
    dense = [
        f"{path} ({(kernel == 0).mean():.3f})"
        for path, kernel in kernels.items()
        if not pattern.is_reached(kernel)
    ]
    if dense:
        raise SparsityError(
            f"layers did not reach a sparsity of {pattern.fraction}: " + ", ".join(dense),
            fix="train for more steps",
        )
