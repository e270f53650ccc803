"""Canonical fingerprints: equal content, equal key, on every machine.

    fingerprint := sha256(json(canonical(value)))
    canonical   := null | bool | int | float | str | [canonical, ...] | {str: canonical}

A whole float equals its integer (`1.0` and `1` configure the same thing); a path is its POSIX text;
a dataclass is the mapping of its fields. What has no canonical form is refused, because a key that
misses a part of the configuration would serve stale results.
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
    """The JSON form of a configuration value.

    Args:
        value: nested tuples, lists, string-keyed mappings and dataclasses of plain scalars.
        where: the name of the value, for the error message.

    Raises:
        PipelineError: for a value without a canonical form: a function, an array, NaN.
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
        f"{where} cannot be part of a configuration",
        expected="numbers, strings, booleans, None, paths; tuples or string-keyed dicts of them",
        received=f"{type(value).__name__}: {value!r:.80}",
        fix="write the value as plain data, for instance the name instead of the object",
    )


def fingerprint(value: Any) -> str:
    """The sha256 of a value's canonical JSON, as 64 hexadecimal digits."""
    text = json.dumps(
        canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()
