"""The names of the backbones, without importing Keras.

A pipeline must reject a misspelt name at once when it is declared. So the names are parsed from the
source of `keras.applications`; a test compares them with the imported module.
"""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path

from kpipe.installation import missing_package

__all__ = ["OWN_BACKBONES", "backbone_names"]

OWN_BACKBONES = ("EfficientNetLite0",)


@cache
def backbone_names() -> tuple[str, ...]:
    """Return the names that `kpipe.train.backbone` accepts, sorted.

    Example:
        >>> from kpipe.train import backbone_names
        >>> [name for name in backbone_names() if "Lite" in name]
        ['EfficientNetLite0']
    """
    found = importlib.util.find_spec("keras")
    if found is None or not found.submodule_search_locations:
        raise missing_package("the list of backbones", "keras")
    index = Path(found.submodule_search_locations[0], "applications", "__init__.py")
    names = [
        alias.name
        for statement in ast.parse(index.read_text(encoding="utf-8")).body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
        if alias.name[0].isupper()  # a constructor; the others are modules
    ]
    return tuple(sorted([*names, *OWN_BACKBONES]))
