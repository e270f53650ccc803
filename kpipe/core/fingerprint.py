"""Canonical fingerprints: equal content gives equal keys, on every machine.

    fingerprint := sha256(json(canonical(value)))
    canonical   := null | bool | int | float | str | [canonical, ...] | {str: canonical}

A whole float equals its integer (`1.0` and `1` configure the same thing), a path becomes its POSIX
text, and a dataclass the mapping of its fields. Any other value is an error: a key that ignored
part of the configuration would return stale results.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from kpipe.errors import PipelineError

__all__ = ["canonical", "fingerprint"]


def canonical(value: Any, where: str = "value") -> Any:
    """Return the JSON form of a configuration value.

    Args:
        value: nested tuples, lists, string-keyed mappings and dataclasses of scalars.
        where: the name of the value, for the error message.

    Raises:
        PipelineError: a value without a canonical form, such as a function, an array or NaN.

    Example:
        >>> from pathlib import Path
        >>> from kpipe.core.fingerprint import canonical
        >>> canonical({"epochs": 3.0, "weights": (Path("a") / "b", None)})
        {'epochs': 3, 'weights': ['a/b', None]}
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise PipelineError(
                f"{where} is not a finite number", expected="a finite number", received=repr(value)
            )
        return int(value) if value.is_integer() else value
    if isinstance(value, PurePath):
        return value.as_posix()
    if isinstance(value, tuple | list):
        return [canonical(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: canonical(item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return canonical(fields, where)
    raise PipelineError(
        f"{where} has a type that cannot be part of a configuration",
        expected="numbers, strings, booleans, None, paths; tuples or string-keyed dicts of them",
        received=f"{type(value).__name__}: {value!r:.80}",
        fix="use plain data, for example a name instead of an object",
    )


def fingerprint(value: Any) -> str:
    """Return the sha256 of a value's canonical JSON, as 64 hexadecimal digits.

    Example:
        >>> from kpipe.core.fingerprint import fingerprint
        >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1.0})
        True
    """
    text = json.dumps(
        canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()
