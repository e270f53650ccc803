"""Let Keras use a model's own functions and classes when it rebuilds layers in memory.

    configuration   {"name": "conv", "activation": a name, or the code of a lambda}
    referenced      {"name": "conv", "activation": a reference, "kpipe>conv.activation"}
    live            {"kpipe>conv.activation": the function that the layer holds}

Keras finds a function or class by its bare name. A custom function may be unknown to Keras or
share its name with one of Keras, and Keras refuses the code of a lambda.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras

from kpipe.keras_internals import layers_within, term_of

__all__ = ["load_stored", "referenced"]


def referenced(config: Any, sources: Iterable[Any]) -> tuple[Any, dict[str, Any]]:
    """Replace the functions and classes in a configuration that are not Keras' by references.

    Args:
        config: of a layer, raw operation or model, nested to any depth.
        sources: the layers and raw operations that it describes; matched by name.

    Returns:
        The new configuration, and what each reference means, for
        `keras.saving.custom_object_scope`.
    """
    known = {inside.name: inside for source in sources for inside in _within(source)}
    live: dict[str, Any] = {}

    def refer(source: Any, key: str, thing: Any) -> dict[str, Any]:
        reference = f"kpipe>{source.name}.{key}"
        live[reference] = thing
        return {"module": None, "registered_name": reference}

    def replaced(node: Any) -> Any:
        if isinstance(node, list | tuple):
            return type(node)(map(replaced, node))
        if not isinstance(node, dict):
            return node
        new = {key: replaced(value) for key, value in node.items()}
        source = known.get(_name(node))
        for key, value in node.items() if source is not None else ():
            function = term_of(source, key)
            # Custom classes may look up a name, or make a function from it, in their own way.
            described = isinstance(value, dict) or _is_keras(type(source))
            if isinstance(value, str | dict) and described and _is_own_function(function):
                named = refer(source, key, function)
                new[key] = {**named, "class_name": "function", "config": named["registered_name"]}
        inside = known.get(_name(node.get("config")))
        if "class_name" in node and inside is not None and not _is_keras(type(inside)):
            new |= refer(inside, "class", type(inside))
        return new

    return replaced(config), live


def load_stored(path: Path, sources: Iterable[Any]) -> keras.Model:
    """Load a `.keras` file of a model, not compiled, with functions and classes in memory.

    Args:
        path: the file.
        sources: layers and raw operations that hold the functions and classes of the model.
    """
    with zipfile.ZipFile(path) as stored, TemporaryDirectory() as folder:
        config, live = referenced(json.loads(stored.read("config.json")), sources)
        if live:  # Keras reads the configuration from a file only
            path = Path(folder) / path.name
            with zipfile.ZipFile(path, "w") as changed:
                for item in stored.infolist():
                    is_config = item.filename == "config.json"
                    changed.writestr(item, json.dumps(config) if is_config else stored.read(item))
        return keras.models.load_model(path, custom_objects=live, compile=False)


def _within(source: Any) -> list[Any]:
    return layers_within(source) if isinstance(source, keras.layers.Layer) else [source]


def _name(node: Any) -> str:
    name = node.get("name") if isinstance(node, dict) else None
    return name if isinstance(name, str) else ""


def _is_own_function(thing: Any) -> bool:
    if not callable(thing) or isinstance(thing, type | keras.Operation):
        return False
    return not _is_keras(thing if hasattr(thing, "__name__") else type(thing))


def _is_keras(thing: Any) -> bool:
    return str(thing.__module__).partition(".")[0] == "keras"
