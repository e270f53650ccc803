"""A folder in which a training survives being killed.

    training.json           what is being trained; another training is refused
    checkpoint, ckpt-*      weights, masks, thresholds, optimizer, dropout generators

Layers that draw have generators that are part of the checkpoint, so that it goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras

from kpipe.sparsity.bridge.layers import is_called, settings_of
from kpipe.sparsity.bridge.mapping import leaves
from kpipe.sparsity.tf_keras_internals import BaseRandomLayer, generator_of, layers_within

__all__ = ["Saver", "description"]


class Saver:
    """The checkpoints of one training; nothing without a folder."""

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
        """Go back to the last epoch saved, if any, and return the steps done."""
        if self._manager is not None and self._manager.latest_checkpoint:
            status = self._checkpoint.restore(self._manager.latest_checkpoint)
            status.assert_existing_objects_matched()
        return int(self.optimizer.iterations)

    def save(self) -> None:
        """Keep the state after an epoch, and the one before it."""
        if self._manager is not None:
            # Written aside; the file "checkpoint", renamed last, points to what is whole.
            self._manager.save(checkpoint_number=int(self.optimizer.iterations))


def description(
    model: keras.Model, what: Mapping[str, Any], epochs: int, steps: int, settings: Any
) -> dict[str, Any]:
    """What makes one training differ from another, down to the layers and weights it starts from.

    Args:
        model: the Keras 3 model to be trained.
        what: is done to it, plain values.
        epochs: how many.
        steps: batches in each epoch.
        settings: a dataclass; its fields that are not compared do not count.
    """
    weights = hashlib.sha256()
    for _, layer in leaves(model):
        kind = type(layer).__name__
        config = {} if is_called(layer) else settings_of(layer)
        said = json.dumps([kind, config, layer.trainable], default=repr, sort_keys=True)
        weights.update(said.encode())
    for weight in model.weights:
        weights.update(f"{tuple(weight.shape)}".encode())
        weights.update(np.ascontiguousarray(weight.numpy()).tobytes())
    told = {item.name: getattr(settings, item.name) for item in fields(settings) if item.compare}
    if settings.class_weight is not None:
        told["class_weight"] = {str(k): float(v) for k, v in settings.class_weight.items()}
    assert not told.keys() & what.keys()
    return {
        **what,
        "epochs": epochs,
        "steps_per_epoch": steps,
        **told,
        "weights": weights.hexdigest(),
    }
