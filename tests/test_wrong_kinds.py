from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kpipe.wrong_kinds import names_wrong_kinds


class NoDiskError(Exception):
    """An error of a user's code."""


WRONG: Any = "3"


@names_wrong_kinds
def evaluated(evaluate: Callable[[], float], share: float) -> float:
    return evaluate()


def raising(error: Exception) -> Callable[[], float]:
    def evaluate() -> float:
        raise error

    return evaluate


def test_a_raw_error_names_an_argument_of_a_wrong_kind() -> None:
    with pytest.raises(TypeError, match=r"evaluated\(\): share is '3', a str, expected float"):
        evaluated(raising(ValueError()), WRONG)


def test_an_error_of_a_callback_stays_whatever_the_other_arguments() -> None:
    for share in (3.0, WRONG):
        with pytest.raises(NoDiskError):
            evaluated(raising(NoDiskError()), share)
