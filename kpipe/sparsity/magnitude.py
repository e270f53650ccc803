"""Magnitude pruning by TFMOT: during training the smallest weights of a layer become zeros.

    share of zeros at step t = s - s * (1 - t / T)^3        (Zhu and Gupta 2017, arXiv:1710.01878)

with s the sparsity asked for and T the end of the ramp; after T the masks stay and the remaining
weights recover. A training that was killed ends with the same
weights as one that was not; see `resuming`.
"""

from __future__ import annotations

import itertools
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras

from kpipe.errors import SparsityError, nearest
from kpipe.sparsity.bridge import to_keras, to_tf_keras
from kpipe.sparsity.mapping import leaves
from kpipe.sparsity.resuming import RANDOM, Saver, claim, description

__all__ = ["MagnitudeSettings", "prune_magnitude", "sparsity_of"]


@contextmanager
def _untouched_environment() -> Iterator[None]:
    """Import TFMOT without what it leaves behind.

    It sets TF_USE_LEGACY_KERAS for the whole process, which turns a `tf.keras` that nobody has
    used yet, KerasCV and every child process to tf_keras.
    """
    _ = tf.keras.layers  # decided now, before the variable is set
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    try:
        with warnings.catch_warnings():
            # It compares versions by distutils, which warns of itself.
            warnings.filterwarnings("ignore", message="distutils Version classes are deprecated")
            yield
    finally:
        if before is None:
            os.environ.pop("TF_USE_LEGACY_KERAS", None)
        else:
            os.environ["TF_USE_LEGACY_KERAS"] = before


with _untouched_environment():
    import tensorflow_model_optimization as tfmot

_PRUNED = (tf_keras.layers.Conv2D, tf_keras.layers.Dense)
# By class, since tf_keras.optimizers.get("adam") gives the legacy one, which cannot be built ahead.
_OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "adadelta": tf_keras.optimizers.Adadelta,
    "adam": tf_keras.optimizers.Adam,
    "adamw": tf_keras.optimizers.AdamW,
    "rmsprop": tf_keras.optimizers.RMSprop,
    "sgd": partial(tf_keras.optimizers.SGD, momentum=0.9),
}


@dataclass(frozen=True)
class MagnitudeSettings:
    """How to train while the zeros grow.

    Attributes:
        optimizer: "adam", "adamw", "sgd" (momentum 0.9), "rmsprop" or "adadelta".
        learning_rate: kept constant.
        ramp: share of all steps after which the sparsity is reached, above 0 and at most 1.
        updates: how often the masks are chosen anew on the way, at most.
        class_weight: weight of each class index in the loss.
        seed: of the dropout draws.
        on_epoch: called with (epoch from 0, {"loss", "accuracy"}) after each epoch's checkpoint.
    """

    optimizer: str = "adam"
    learning_rate: float = 1e-3
    ramp: float = 0.7
    updates: int = 20
    class_weight: Mapping[int, float] | None = None
    seed: int = 0
    on_epoch: Callable[[int, dict[str, float]], None] | None = field(
        default=None, compare=False, repr=False
    )


_DEFAULTS = MagnitudeSettings()


def prune_magnitude(
    model: keras.Model,
    data: Callable[[int], tf.data.Dataset] | tf.data.Dataset,
    *,
    sparsity: float,
    epochs: int,
    steps_per_epoch: int,
    settings: MagnitudeSettings = _DEFAULTS,
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
        sparsity: share of zeros, between 0 and 1.
        epochs: how many.
        steps_per_epoch: batches in each.
        settings: how to train.
        folder: keeps a checkpoint after each epoch, and continues from the last one there.

    Returns:
        A Keras 3 model with the same layers and names, whose zeros are where TFMOT put them.

    Raises:
        SparsityError: numbers out of range, nothing to prune, layers that tf_keras does not have,
            a loss that is not finite, data that ends too soon, or a folder of another training.
    """
    _check_numbers(sparsity, epochs, steps_per_epoch, settings)
    schedule = _schedule(sparsity, epochs * steps_per_epoch, settings)
    twin, pruned = _masked(to_tf_keras(model), schedule, settings.seed)
    twin.compile(optimizer=_optimizer(settings))
    twin.optimizer.build(twin.trainable_variables)

    saver = Saver(twin, folder)
    if folder is not None:
        claim(Path(folder), description(model, sparsity, epochs, steps_per_epoch, settings))
    done = saver.restore() // steps_per_epoch
    if done < epochs:
        batches = data(done) if callable(data) else data.repeat().skip(done * steps_per_epoch)
        loss = _loss(batches, settings)
        twin.compile(optimizer=twin.optimizer, loss=loss, metrics=["accuracy"])
        twin.fit(
            batches,
            initial_epoch=done,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
            class_weight=dict(settings.class_weight) if settings.class_weight else None,
            callbacks=[
                tfmot.sparsity.keras.UpdatePruningStep(),
                _Watch(saver, settings.on_epoch, steps_per_epoch),
            ],
            verbose=0,
        )
    result = to_keras(tfmot.sparsity.keras.strip_pruning(twin), template=model)
    _refuse_too_dense(result, pruned, sparsity)
    return result


def sparsity_of(model: keras.Model) -> dict[str, float]:
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


class _Watch(tf_keras.callbacks.Callback):
    """Stops at a loss that is not finite or data that ends; saves and reports each epoch."""

    def __init__(
        self,
        saver: Saver,
        on_epoch: Callable[[int, dict[str, float]], None] | None,
        steps_per_epoch: int,
    ) -> None:
        super().__init__()
        self._saver = saver
        self._on_epoch = on_epoch
        self._steps_per_epoch = steps_per_epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise SparsityError(
                f"the loss became {loss} at step {int(self._saver.optimizer.iterations)}",
                fix="lower learning_rate, and check that labels and images are right",
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        steps, expected = int(self._saver.optimizer.iterations), (epoch + 1) * self._steps_per_epoch
        if steps != expected:
            raise SparsityError(
                f"the data ended in epoch {epoch}",
                expected=f"{self._steps_per_epoch} batches in each epoch",
                received=f"{steps - expected + self._steps_per_epoch}",
                fix="give a dataset that repeats without end",
            )
        self._saver.save()
        if self._on_epoch is not None:
            self._on_epoch(epoch, {name: float(value) for name, value in (logs or {}).items()})


def _masked(model: tf_keras.Model, schedule: Any, seed: int) -> tuple[tf_keras.Model, list[str]]:
    """The model with masks and restorable dropout, and the paths of the masked layers."""
    pruned: list[str] = []
    dropouts = itertools.count(seed)

    def replaced(layer: Any, prefix: str) -> Any:
        if isinstance(layer, tf_keras.Model):
            return inside(layer, f"{prefix}{layer.name}/")
        if type(layer) in RANDOM:
            draws = {"seed": next(dropouts), "rng_type": "stateful"}
            return type(layer).from_config({**layer.get_config(), **draws})
        if type(layer) in _PRUNED and layer.trainable:
            pruned.append(prefix + layer.name)
            return tfmot.sparsity.keras.prune_low_magnitude(layer, pruning_schedule=schedule)
        return layer

    def inside(container: Any, prefix: str) -> Any:
        return tf_keras.models.clone_model(
            container, clone_function=lambda layer: replaced(layer, prefix)
        )

    masked = inside(model, "")
    if not pruned:
        raise SparsityError(
            f"nothing to prune in {model.name!r}",
            expected="at least one trainable Conv2D or Dense layer",
            fix="set layer.trainable = True on the layers to prune",
        )
    return masked, pruned


def _schedule(sparsity: float, steps: int, settings: MagnitudeSettings) -> Any:
    """TFMOT's schedule, ending on a step where it really acts: a multiple of its frequency."""
    ramp = max(1, int(steps * settings.ramp))
    frequency = max(1, ramp // settings.updates)
    return tfmot.sparsity.keras.PolynomialDecay(
        initial_sparsity=0.0,
        final_sparsity=sparsity,
        begin_step=0,
        end_step=ramp - ramp % frequency,
        frequency=frequency,
    )


def _optimizer(settings: MagnitudeSettings) -> Any:
    if settings.optimizer not in _OPTIMIZERS:
        raise SparsityError(
            f"unknown optimizer {settings.optimizer!r}",
            fix=nearest(settings.optimizer, _OPTIMIZERS),
        )
    return _OPTIMIZERS[settings.optimizer](learning_rate=settings.learning_rate)


def _loss(batches: tf.data.Dataset, settings: MagnitudeSettings) -> str:
    """The cross-entropy that fits the labels."""
    if not batches.element_spec[1].dtype.is_floating:
        return "sparse_categorical_crossentropy"
    if settings.class_weight:
        raise SparsityError(
            "class_weight is for whole labels, and these are shares of the classes",
            fix="give each photo its weight, as the third item of the dataset",
        )
    return "categorical_crossentropy"


def _check_numbers(
    sparsity: float, epochs: int, steps_per_epoch: int, settings: MagnitudeSettings
) -> None:
    wrong = [
        f"{name}={value}"
        for name, value, right in [
            ("sparsity", sparsity, 0 < sparsity < 1),
            ("epochs", epochs, epochs >= 1),
            ("steps_per_epoch", steps_per_epoch, steps_per_epoch >= 1),
            ("ramp", settings.ramp, 0 < settings.ramp <= 1),
            ("updates", settings.updates, settings.updates >= 1),
            ("learning_rate", settings.learning_rate, settings.learning_rate > 0),
        ]
        if not right
    ]
    if wrong:
        raise SparsityError(
            "magnitude pruning cannot be done with " + ", ".join(wrong),
            expected="sparsity between 0 and 1, ramp above 0 and at most 1, the others positive",
        )


def _refuse_too_dense(model: keras.Model, pruned: list[str], sparsity: float) -> None:
    """The last mask must have been applied; equal magnitudes and rounding may cost a little."""
    dense = [
        f"{path} ({share:.3f})"
        for path, share in sparsity_of(model).items()
        if path in pruned and share < sparsity - 0.1
    ]
    if dense:
        raise SparsityError(
            f"layers did not reach a sparsity of {sparsity}: " + ", ".join(dense),
            fix="train for more steps",
        )
