"""Check the fields of a stage against their annotations.

    macs: Annotated[float, Between(0, 1)] = 0.5
    switch_when: int | Literal["plateau"] = "plateau"

A stage declares the valid values where it declares the field. One checker reads the declarations,
for every stage and for `--set`.
"""

from __future__ import annotations

import ast
import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from kpipe.errors import PipelineError, nearest

__all__ = [
    "Between",
    "check_fields",
    "describe",
    "field_names",
    "nearest_field",
    "parse_field",
]

# Words of a command line -> the value that is meant, where the field accepts it.
_WORDS = {
    "none": None,
    "null": None,
    "true": True,
    "yes": True,
    "on": True,
    "false": False,
    "no": False,
    "off": False,
}
# Field -> what other libraries call it.
_USUAL_NAMES = {
    "alpha": ("width", "width_multiplier", "width_mult"),
    "backbone": ("network", "net", "model", "base", "base_model", "architecture", "arch"),
    "batch_size": ("batch", "bs"),
    "image_size": ("input_size", "size", "resolution", "img_size", "imgsz", "input_shape"),
    "learning_rate": ("lr", "lr0", "initial_learning_rate"),
    "macs": ("flops", "ratio", "target"),
    "members": ("networks", "models", "estimators", "n_estimators"),
    "patience": ("early_stopping",),
    "quantize": ("precision", "dtype", "optimizations"),
    "retrain_last": ("trainable_layers", "unfreeze", "unfreeze_last", "fine_tune_at"),
    "schedule": ("scheduler", "lr_schedule", "lr_scheduler"),
    "soft_target_weight": ("distill", "distillation"),
    "source": ("path", "folder", "directory", "data"),
    "weights": ("pretrained", "checkpoint"),
}


@dataclasses.dataclass(frozen=True)
class Between:
    """The range of a number: `low <= x <= high`, or `low < x < high` if `strict`.

    Example:
        >>> from kpipe.core.fields import Between
        >>> 1 in Between(0, 1), 1 in Between(0, 1, strict=True)
        (True, False)
    """

    low: float
    high: float = float("inf")
    strict: bool = False

    def __contains__(self, number: float) -> bool:
        if self.strict:
            return self.low < number < self.high
        return self.low <= number <= self.high

    def __str__(self) -> str:
        if self.high == float("inf"):
            return f"above {self.low}" if self.strict else f"{self.low} or more"
        return f"between {self.low} and {self.high}" + (", both excluded" if self.strict else "")


def _fits(value: Any, annotation: Any) -> bool:
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        inner, *limits = parts
        return _fits(value, inner) and all(value in limit for limit in limits)
    if origin is Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is tuple:
        if not isinstance(value, tuple | list):
            return False
        if parts[-1] is Ellipsis:
            return all(_fits(item, parts[0]) for item in value)
        return len(value) == len(parts) and all(map(_fits, value, parts))
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            _fits(key, parts[0]) and _fits(item, parts[1]) for key, item in value.items()
        )
    if annotation is Any:
        return True
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation is types.NoneType:
        return value is None
    return isinstance(value, annotation)


def describe(annotation: Any) -> str:
    """Describe an annotation in words.

    Example:
        >>> from typing import Annotated
        >>> from kpipe.core.fields import Between, describe
        >>> describe(Annotated[float, Between(0, 1)])
        'a number between 0 and 1'
    """
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return f"{describe(parts[0])} {' and '.join(map(str, parts[1:]))}"
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(describe, parts))
    if origin is tuple:
        if parts[-1] is Ellipsis:
            return f"a tuple, each item {describe(parts[0])}"
        return f"a tuple of {len(parts)}: {', '.join(map(describe, parts))}"
    if origin is not None:
        return "a dict"
    words = {
        float: "a number",
        int: "a whole number",
        str: "a string",
        bool: "True or False",
        Path: "a path",
        types.NoneType: "None",
    }
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _literals(annotation: Any) -> list[str]:
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) is Literal:
        return [part for part in parts if isinstance(part, str)]
    return [name for part in parts for name in _literals(part)]


def field_names(stage: Any) -> list[str]:
    """Return the names of the fields of a dataclass or of an instance."""
    return [field.name for field in dataclasses.fields(stage)]


def nearest_field(name: str, known: Iterable[str]) -> str:
    """Return a hint for an unknown field: what kpipe calls it, the closest name, or all names.

    Example:
        >>> from kpipe.core.fields import nearest_field
        >>> nearest_field("lr", ["epochs", "learning_rate"])
        "did you mean 'learning_rate'?"
    """
    names = list(known)
    for field in names:
        if name.casefold() in _USUAL_NAMES.get(field, ()):
            return f"did you mean {field!r}?"
    return nearest(name, names)


def check_fields(stage: Any) -> list[str]:
    """Return one sentence for each invalid field value of a dataclass instance."""
    hints = typing.get_type_hints(type(stage), include_extras=True)
    errors = []
    for field in dataclasses.fields(stage):
        value, annotation = getattr(stage, field.name), hints[field.name]
        if _fits(value, annotation):
            continue
        names = _literals(annotation)
        hint = f"; {nearest(value, names)}" if isinstance(value, str) and names else ""
        if meant := [word for word in _meant(value) if _fits(word, annotation)]:
            hint = f"; write {meant[0]!r}, without quotes"
        errors.append(f"{field.name}={value!r}: expected {describe(annotation)}{hint}")
    return errors


def _meant(value: Any) -> list[Any]:
    """Return what a word such as "none" or "yes" means; empty for all other values."""
    word = value.casefold() if isinstance(value, str) else None
    return [_WORDS[word]] if word in _WORDS else []


def parse_field(stage: Any, name: str, text: str) -> Any:
    """Return the value of `--set stage.name=text`: a Python literal, or the text itself.

    Words such as "none", "null", "true" and "no" mean None, True or False, in fields that accept
    these.

    Raises:
        PipelineError: an unknown field, or an invalid value.
    """
    hints = typing.get_type_hints(type(stage), include_extras=True)
    known = field_names(stage)
    kind = type(stage).__name__
    if name not in known:
        raise PipelineError(
            f"{kind} has no field {name!r}",
            expected=f"one of {', '.join(known)}",
            received=name,
            fix=nearest_field(name, known),
        )
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        value = text
    # The empty string is the "none" of fields such as Augment.flip.
    nothing = [""] if _meant(text) == [None] else []
    for candidate in (*_meant(text), value, text, *nothing):
        if _fits(candidate, hints[name]):
            return candidate
    literals = _literals(hints[name])
    raise PipelineError(
        f"{kind}.{name}={text!r} is invalid",
        expected=describe(hints[name]),
        received=text,
        fix=nearest(text, literals) if literals else "",
    )
