"""Raise TypeErrors that name the argument of a wrong type.

    call -> result
         -> error of Python, Keras, TensorFlow, NumPy, pandas, scikit-learn or Pillow, and an
            argument that does not fit its annotation: a TypeError with its name, from that error
         -> any other error, of kpipe or of a user's callback: as it is

Arguments are not checked before the call: a type checker does that, and values of other types,
such as a list for a tuple, may work.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import numbers
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, ParamSpec, TypeVar

__all__ = ["names_wrong_kinds", "names_wrong_kinds_of_fields"]

P = ParamSpec("P")
R = TypeVar("R")
Class = TypeVar("Class", bound=type)

_RAW = {"builtins", "keras", "tensorflow", "numpy", "pandas", "sklearn", "PIL"}
_NUMBERS = {float: numbers.Real, int: numbers.Integral}


def names_wrong_kinds(function: Callable[P, R]) -> Callable[P, R]:
    """Name the arguments of a wrong type when a function fails.

    Example:
        >>> from kpipe.wrong_kinds import names_wrong_kinds
        >>> @names_wrong_kinds
        ... def half(number: float) -> float:
        ...     return number / 2
        >>> half("3")
        Traceback (most recent call last):
            ...
        TypeError: half(): number is '3', a str, expected float
    """

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            wrong = _wrong_kinds(function, args, kwargs, error) if _is_raw(error) else []
            if wrong:
                raise TypeError(f"{_name(function)}(): {'; '.join(wrong)}") from error
            raise

    return called


def names_wrong_kinds_of_fields(kind: Class) -> Class:
    """Do the same for the constructor of a class."""
    initialize: Any = kind.__init__  # type: ignore[misc]
    kind.__init__ = names_wrong_kinds(initialize)  # type: ignore[misc]
    return kind


def _is_raw(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] in _RAW


def _name(function: Callable[..., Any]) -> str:
    return function.__qualname__.removesuffix(".__init__")


def _wrong_kinds(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    error: Exception,
) -> list[str]:
    """Return a phrase for each argument that does not fit its annotation."""
    try:
        hints = typing.get_type_hints(function)
        bound = inspect.signature(function).bind(*args, **kwargs)
    except (NameError, TypeError):  # Python's own message names a missing or an unknown argument
        return []
    parameters = bound.signature.parameters
    return [
        f"{name} is {_described(value)}, expected {parameters[name].annotation}"
        for name, value in bound.arguments.items()
        if name in hints and parameters[name].kind is not inspect.Parameter.VAR_KEYWORD
        if not _fits(value, hints[name])
        or (
            # Python's error about a path with a NUL, a kind of text that no annotation excludes.
            "embedded null" in f"{error} {error.__cause__}" and "\0" in str(value)
        )
    ]


def _described(value: Any) -> str:
    if value is None:
        return "None"
    shown = f"{value!r:.60}, " if isinstance(value, str | bytes | int | float) else ""
    return f"{shown}a {type(value).__name__}"


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a value fits an annotation; True if the annotation cannot tell."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _fits(value, parts[0])
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is typing.Literal:
        return isinstance(value, tuple({type(part) for part in parts}))
    if origin is collections.abc.Callable:
        return callable(value) and _takes(value, parts[0])
    if annotation is Any or typing.Protocol in getattr(origin or annotation, "__bases__", ()):
        return True
    if origin is tuple and Ellipsis not in parts:
        return isinstance(value, collections.abc.Sequence) and (
            len(value) == len(parts) and all(map(_fits, value, parts))
        )
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            _fits(key, parts[0]) and _fits(item, parts[1]) for key, item in value.items()
        )
    if origin is not None and issubclass(origin, collections.abc.Iterable):
        # Iterators are not consumed, and a list or an array serves for a tuple.
        items = value if isinstance(value, Collection) else ()
        kinds = [part for part in parts if part is not Ellipsis]
        return isinstance(value, collections.abc.Iterable) and all(
            any(_fits(item, part) for part in kinds) for item in items
        )
    if annotation is None:
        return value is None
    annotation = _NUMBERS.get(annotation, origin or annotation)
    return not isinstance(annotation, type) or isinstance(value, annotation)


def _takes(function: Callable[..., Any], parameters: Any) -> bool:
    """Whether a function can be called with as many arguments as its annotation has."""
    if parameters is Ellipsis:
        return True
    try:
        inspect.signature(function).bind(*parameters)
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        return True
    return True
