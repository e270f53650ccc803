"""The names of the backbones, known without loading Keras.

A pipeline refuses a misspelt name when it is declared, and `kpipe plan` answers at once: so the
names are read from the text of Keras' own index of applications, which a test holds against the
live one.
"""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path

from kpipe.errors import WeightsError

__all__ = ["OWN_BACKBONES", "backbone_names"]

OWN_BACKBONES = ("EfficientNetLite0",)


@cache
def backbone_names() -> tuple[str, ...]:
    """The names that `kpipe.train.backbone` knows, sorted."""
    found = importlib.util.find_spec("keras")
    if found is None or not found.submodule_search_locations:
        raise WeightsError("Keras is not installed", fix="pip install keras")
    index = Path(found.submodule_search_locations[0], "applications", "__init__.py")
    names = [
        alias.name
        for statement in ast.parse(index.read_text(encoding="utf-8")).body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
        if alias.name[0].isupper()  # a constructor; the others are modules
    ]
    return tuple(sorted([*names, *OWN_BACKBONES]))
