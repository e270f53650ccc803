"""What becomes of each layer between Keras 3 and tf_keras, told before anything is built.

mapped     a layer of the other library that computes the same
called     an operation of Keras 3 that tf_keras calls as it is
refused    no equal is known, for the reason that stands beside it
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import keras
import pandas as pd
import tf_keras
from keras.src.models.functional import Functional

from kpipe.errors import SparsityError
from kpipe.sparsity.bridge.layers import FIELDS, is_raw, settings_of
from kpipe.sparsity.bridge.operation import KerasOperation

__all__ = ["CONTAINERS", "layer_mapping", "leaves", "refuse_unequal"]

_SCOPE = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_./\\>-]*")
CONTAINERS = (Functional, keras.Sequential, tf_keras.Sequential, tf_keras.Model)


def layer_mapping(model: keras.Model | tf_keras.Model) -> pd.DataFrame:
    """A row for each layer and raw operation inside, in the order of the graph.

    Args:
        model: a functional or Sequential model of either library; models inside are looked into.

    Returns:
        Columns "path" ("backbone/conv"), "kind" ("Conv2D"), "outcome" ("mapped", "called" or
        "refused") and "reason", empty but for what is refused.

    Raises:
        SparsityError: a model without a graph.
    """
    if not _has_graph(model):
        raise SparsityError(
            f"the model {getattr(model, 'name', model)!r} has no graph to rebuild",
            expected="a built functional or Sequential model without a call() of its own",
            received=type(model).__name__,
        )
    rows = [(path, _kind(part), *_outcome(part)) for path, part in _parts(model)]
    return pd.DataFrame(rows, columns=["path", "kind", "outcome", "reason"])


def _has_graph(model: Any) -> bool:
    if isinstance(model, keras.Sequential):
        built = model._functional is not None
    elif isinstance(model, tf_keras.Model):
        built = model._is_graph_network
    else:
        built = isinstance(model, Functional)
    library = type(model).call.__module__.partition(".")[0] if built else ""
    return library in ("keras", "tf_keras")  # or it does more than its graph says


def refuse_unequal(model: Any) -> None:
    """An error that names every layer that cannot cross, with its reason."""
    found = layer_mapping(model)
    refused = found[found["outcome"] == "refused"]
    if len(refused):
        lines = [f"{row.path} ({row.kind}): {row.reason}" for row in refused.itertuples()]
        raise SparsityError(
            f"layers of {model.name!r} that cannot cross between Keras 3 and tf_keras:\n  - "
            + "\n  - ".join(lines),
            expected="layers that both libraries have: " + ", ".join(FIELDS),
            fix="replace these layers, or leave this step out",
        )


def leaves(model: Any) -> Iterator[tuple[str, Any]]:
    """(path, layer) of every layer inside, inputs, containers and raw operations left out."""
    for path, part in _parts(model):
        if isinstance(part, (keras.layers.Layer, tf_keras.layers.Layer)):
            yield path, part


def _parts(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(model, keras.Sequential) and len({*map(id, model.layers)}) < len(model.layers):
        raise SparsityError(
            f"the Sequential {model.name!r} uses a layer twice, of which tf_keras keeps one",
            fix="build it by the functional API",
        )
    for part in model.operations if isinstance(model, Functional) else model.layers:
        path = f"{prefix}{part.name}"
        if isinstance(part, CONTAINERS) and _has_graph(part) and not _misnamed(part):
            yield from _parts(part, f"{path}/")
        elif not isinstance(part, (keras.layers.InputLayer, tf_keras.layers.InputLayer)):
            yield path, part


def _misnamed(part: Any) -> str:
    """Why the other library would not take the name; empty where it does."""
    if not _SCOPE.fullmatch(part.name):
        return "its name is none for TensorFlow: letters, digits, _ . - and no _ first"
    return "" if "/" not in part.name else "its name is none for Keras 3, which allows no /"


def _kind(part: Any) -> str:
    return type(part.operation if isinstance(part, KerasOperation) else part).__name__


def _outcome(part: Any) -> tuple[str, str]:
    if reason := _misnamed(part):
        return "refused", reason
    if isinstance(part, CONTAINERS):
        return "refused", "a model with a call() of its own, which no graph tells"
    if isinstance(part, KerasOperation) or (isinstance(part, keras.Operation) and is_raw(part)):
        return "called", ""
    try:
        settings_of(part)
    except ValueError as reason:
        return "refused", str(reason)
    return "mapped", ""
