"""The outcome for each layer on the way between Keras 3 and tf_keras, before anything is built.

mapped     the other library has a layer that computes the same
called     an operation of Keras 3 that tf_keras calls itself
refused    no equivalent is known; "reason" says why
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import keras
import pandas as pd
import tf_keras

from kpipe.errors import SparsityError
from kpipe.keras_graph import find_graph
from kpipe.keras_internals import Functional
from kpipe.sparsity.bridge.layers import FIELDS, is_called, settings_of
from kpipe.sparsity.bridge.operation import KerasOperation
from kpipe.sparsity.tf_keras_internals import has_graph
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["CONTAINERS", "layer_mapping", "leaves", "refuse_unmapped"]

_SCOPE = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_./\\>-]*")
CONTAINERS = (Functional, keras.Sequential, tf_keras.Sequential, tf_keras.Model)


@names_wrong_kinds
def layer_mapping(model: keras.Model | tf_keras.Model) -> pd.DataFrame:
    """Return a row for each layer and raw operation inside, in the order of the graph.

    Args:
        model: a functional or Sequential model of either library; nested models are included.

    Returns:
        Columns "path" ("backbone/conv"), "kind" ("Conv2D"), "outcome" ("mapped", "called" or
        "refused") and "reason", empty unless refused.

    Raises:
        SparsityError: a model without a graph.

    Example:
        >>> import keras
        >>> from kpipe.sparsity import layer_mapping
        >>> image = keras.Input((8, 8, 3))
        >>> x = keras.layers.Conv2D(4, 3, name="conv")(image)
        >>> model = keras.Model(image, keras.layers.RMSNormalization(name="rms")(x))
        >>> layer_mapping(model)[["path", "kind", "outcome"]]
           path              kind  outcome
        0  conv            Conv2D   mapped
        1   rms  RMSNormalization  refused
    """
    if not _has_graph(model):
        raise SparsityError(
            f"the model {getattr(model, 'name', model)!r} has no graph to rebuild",
            expected="a built functional or Sequential model without a custom call()",
            received=type(model).__name__,
        )
    rows = [(path, _kind(part), *_outcome(part)) for path, part in _parts(model)]
    return pd.DataFrame(rows, columns=["path", "kind", "outcome", "reason"])


def _has_graph(model: Any) -> bool:
    if isinstance(model, tf_keras.Model):
        return has_graph(model) and type(model).call.__module__.startswith("tf_keras.")
    return find_graph(model) is not None


def refuse_unmapped(model: Any) -> None:
    """Raise a SparsityError that names every refused layer, with its reason."""
    found = layer_mapping(model)
    refused = found[found["outcome"] == "refused"]
    if len(refused):
        lines = [f"{row.path} ({row.kind}): {row.reason}" for row in refused.itertuples()]
        raise SparsityError(
            f"layers of {model.name!r} cannot be converted between Keras 3 and tf_keras:\n  - "
            + "\n  - ".join(lines),
            expected="layers that both libraries have: " + ", ".join(FIELDS),
            fix="replace these layers, or leave this step out",
        )


def leaves(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield (path, layer) of every layer inside, except inputs, containers and raw operations."""
    for path, part in _parts(model):
        if isinstance(part, (keras.layers.Layer, tf_keras.layers.Layer)):
            yield path, part


def _parts(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(model, keras.Sequential) and len({*map(id, model.layers)}) < len(model.layers):
        raise SparsityError(
            f"the Sequential {model.name!r} uses a layer twice, which tf_keras does not support",
            fix="build it with the functional API",
        )
    for part in model.operations if isinstance(model, Functional) else model.layers:
        path = f"{prefix}{part.name}"
        if isinstance(part, CONTAINERS) and _has_graph(part) and not _invalid_name(part):
            yield from _parts(part, f"{path}/")
        elif not isinstance(part, (keras.layers.InputLayer, tf_keras.layers.InputLayer)):
            yield path, part


def _invalid_name(part: Any) -> str:
    """Return why the other library would not accept the name; empty if it does."""
    if not _SCOPE.fullmatch(part.name):
        return "its name is invalid in TensorFlow: use letters, digits, _ . - and no _ first"
    return "" if "/" not in part.name else "its name is invalid in Keras 3, which allows no /"


def _kind(part: Any) -> str:
    return type(part.operation if isinstance(part, KerasOperation) else part).__name__


def _outcome(part: Any) -> tuple[str, str]:
    if reason := _invalid_name(part):
        return "refused", reason
    if isinstance(part, CONTAINERS):
        return "refused", "a model with a custom call(), which its graph does not describe"
    if isinstance(part, KerasOperation) or (isinstance(part, keras.Operation) and is_called(part)):
        return "called", ""
    try:
        settings_of(part)
    except ValueError as reason:
        return "refused", str(reason)
    return "mapped", ""
