"""The folder from which an interrupted training by TFMOT resumes.

training.json           identifies the training run; another run is refused
checkpoint, ckpt-*      weights, masks, thresholds, optimizer, generators of Dropout layers
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras

from kpipe.errors import SparsityError
from kpipe.sparsity.bridge.layers import is_called, settings_of
from kpipe.sparsity.bridge.mapping import leaves
from kpipe.sparsity.tf_keras_internals import BaseRandomLayer, generator_of, layers_within
from kpipe.sparsity.tfmot.training_settings import TrainingJob

__all__ = ["Saver", "training_identity"]


class Saver:
    """Saves and restores the checkpoints of a training run; does nothing without a folder."""

    def __init__(self, model: tf_keras.Model, folder: str | os.PathLike[str] | None) -> None:
        generators = [
            generator_of(layer)
            for layer in layers_within(model)
            if isinstance(layer, BaseRandomLayer)
        ]
        self.optimizer = model.optimizer
        self._checkpoint = tf.train.Checkpoint(
            model=model, optimizer=model.optimizer, generators=generators
        )
        self._manager = (
            tf.train.CheckpointManager(self._checkpoint, os.fspath(folder), max_to_keep=2)
            if folder is not None
            else None
        )

    def restore(self) -> int:
        """Restore the last readable epoch, if any is saved, and return the number of steps done.

        Raises:
            SparsityError: the saved epochs are damaged.
        """
        saved = self._manager.checkpoints if self._manager is not None else []
        for path in reversed(saved):
            try:
                self._checkpoint.restore(path).assert_existing_objects_matched()
                break
            except (tf.errors.OpError, AssertionError, ValueError) as error:
                damage = str(error)
            warnings.warn(f"the checkpoint {path} cannot be read: {damage[:200]}", stacklevel=2)
        else:
            if saved:  # the weights are no longer those of the start
                raise SparsityError(
                    "no checkpoint of this training can be read",
                    received=", ".join(saved),
                    fix=f"remove {os.path.dirname(saved[0])} to train from the start",
                )
        return int(self.optimizer.iterations)

    def save(self) -> None:
        """Save the state after an epoch; the two latest are kept."""
        if self._manager is not None:
            # Atomic: the file "checkpoint", which is renamed last, points to a complete state.
            self._manager.save(checkpoint_number=int(self.optimizer.iterations))


def training_identity(
    model: keras.Model, method: Mapping[str, Any], job: TrainingJob
) -> dict[str, Any]:
    """Return what distinguishes a training run from others, as plain values.

    Args:
        model: the Keras 3 model to be trained; its layers and weights count.
        method: the arguments of the pruning, clustering or quantization.
        job: its length and its settings, fields with `compare=False` excepted.
    """
    settings = job.settings
    weights = hashlib.sha256()
    for _, layer in leaves(model):
        kind = type(layer).__name__
        config = {} if is_called(layer) else settings_of(layer)
        text = json.dumps([kind, config, layer.trainable], default=repr, sort_keys=True)
        weights.update(text.encode())
    for weight in model.weights:
        weights.update(f"{tuple(weight.shape)}".encode())
        weights.update(np.ascontiguousarray(weight.numpy()).tobytes())
    options = {item.name: getattr(settings, item.name) for item in fields(settings) if item.compare}
    if settings.class_weight is not None:
        options["class_weight"] = {str(k): float(v) for k, v in settings.class_weight.items()}
    assert not options.keys() & method.keys()
    return {
        **method,
        "epochs": job.epochs,
        "steps_per_epoch": job.steps_per_epoch,
        **options,
        "weights": weights.hexdigest(),
    }
