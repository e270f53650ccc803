"""One call for each wrong value of each argument, and what is allowed to come of it.

allowed := a result without NaN | a kpipe error | a TypeError that names the argument
         | an OSError that names a path to write to
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kpipe import KpipeError
from tests.wrong_arguments.kinds import KINDS
from tests.wrong_arguments.things import Things

__all__ = ["Made", "Row", "faults"]


class Made:
    """A right value that is made from the things, at the time of the call."""

    def __init__(self, make: Callable[[Things], Any]) -> None:
        self.make = make


@dataclass(frozen=True)
class Row:
    """A public function or class with right arguments.

    Args:
        arguments: name -> (kind of its wrong values, right value). Without a kind, the argument
            has only the right value.
        free: arguments that take any value, and are not passed.
        use: what a caller does with the result.
        skip: labels of wrong values that take too long to be right.
    """

    arguments: Mapping[str, tuple[str, Any]]
    free: tuple[str, ...] = ()
    use: Callable[[Any], Any] = lambda result: result
    skip: tuple[str, ...] = ()


@dataclass
class Walk:
    """The calls of one row."""

    name: str
    function: Callable[..., Any]
    row: Row
    things: Things

    def right(self) -> dict[str, Any]:
        return {
            name: value.make(self.things) if isinstance(value, Made) else value
            for name, (_, value) in self.row.arguments.items()
        }

    def missing(self) -> set[str]:
        """Return the parameters that the row does not know, and the other way round."""
        kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        parameters = {
            name
            for name, parameter in inspect.signature(self.function).parameters.items()
            if parameter.kind not in kinds
        }
        return parameters ^ {*self.row.arguments, *self.row.free}

    def wrong(self) -> Iterator[tuple[str, str, Any]]:
        for name, (kind, _) in self.row.arguments.items():
            values = KINDS[kind](self.things) if kind else {}
            for label, value in values.items():
                if f"{name} {label}" not in self.row.skip:
                    yield name, label, value

    def call(self, arguments: dict[str, Any]) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", RuntimeWarning)
            return self.row.use(self.function(**arguments))


def faults(name: str, function: Callable[..., Any], row: Row, things: Things) -> list[str]:
    """Return a line for each call that ends in another way than those allowed."""
    walk = Walk(name, function, row, things)
    found = [f"{name}: {parameter} is in one of row and signature" for parameter in walk.missing()]
    if is_nan(walk.call(walk.right())):
        found.append(f"{name}: NaN with right arguments")
    for argument, label, value in walk.wrong():
        outcome, writes = "", row.arguments[argument][0] == "new_folder"
        try:
            if is_nan(walk.call({**walk.right(), argument: value})):
                outcome = "NaN"
        except KpipeError as error:
            with contextlib.suppress(Exception):
                str(error)
                continue
            outcome = "an error that cannot be printed"
        except OSError as error:
            if not writes or error.filename is None:
                outcome = f"{type(error).__name__}: {error}"
        except TypeError as error:
            if not re.search(rf"\b{argument}\b", str(error)):
                outcome = f"TypeError: {error}"
        except Exception as error:
            outcome = f"{type(error).__module__}.{type(error).__name__}: {error}"
        if outcome:
            found.append(f"{name}({argument}={label}) -> {' '.join(outcome.split())[:160]}")
    return found


def is_nan(result: Any) -> bool:
    """Whether a number of a result, or of what it holds, is NaN."""
    if isinstance(result, float | np.floating):
        return math.isnan(result)
    if isinstance(result, np.ndarray):
        return result.dtype.kind == "f" and bool(np.isnan(result).any())
    if dataclasses.is_dataclass(result):
        result = vars(result)
    if isinstance(result, Mapping):
        return any(map(is_nan, result.values()))
    if isinstance(result, tuple | list):
        return any(map(is_nan, result))
    return False
