"""Check model weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kpipe.errors import KpipeError

if TYPE_CHECKING:
    import keras

__all__ = ["refuse_non_finite_weights"]


def refuse_non_finite_weights(model: keras.Model, error: type[KpipeError]) -> None:
    """Raise `error`, naming every weight that contains NaN or infinity.

    Example:
        >>> import keras
        >>> from kpipe.errors import ExportError
        >>> from kpipe.finite_weights import refuse_non_finite_weights
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> refuse_non_finite_weights(model, ExportError)
    """
    broken = sorted(w.path for w in model.weights if not np.isfinite(w.numpy()).all())
    if broken:
        raise error(
            f"the model {model.name!r} has weights that are NaN or infinite: {', '.join(broken)}",
            expected="finite weights",
            fix="train again with a lower learning rate, or load an earlier checkpoint",
        )
