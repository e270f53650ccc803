"""Weights that a training has spoiled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kpipe.errors import KpipeError

if TYPE_CHECKING:
    import keras

__all__ = ["refuse_unfinished_weights"]


def refuse_unfinished_weights(model: keras.Model, error: type[KpipeError]) -> None:
    """Raises `error` with the paths of the weights that hold NaN or infinity."""
    broken = sorted(w.path for w in model.weights if not np.isfinite(w.numpy()).all())
    if broken:
        raise error(
            f"the model {model.name!r} has weights that are NaN or infinite: {', '.join(broken)}",
            expected="finite weights",
            fix="train again with a lower learning rate, or load an earlier checkpoint",
        )
