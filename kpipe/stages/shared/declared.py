"""Find errors in the fields of stages before any of them runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from kpipe.core.stage import Stage
from kpipe.errors import KpipeError

__all__ = ["newest", "refusals"]

Kind = TypeVar("Kind", bound=Stage)


def newest(earlier: Sequence[Stage], kind: type[Kind]) -> Kind | None:
    """Return the newest stage of a kind, or None."""
    return next((stage for stage in reversed(earlier) if isinstance(stage, kind)), None)


def refusals(check: Callable[..., object], *arguments: object) -> list[str]:
    """Return a list with one sentence on the error of a check, or an empty list."""
    try:
        check(*arguments)
    except KpipeError as error:
        parts = (error.what, f"expected {error.expected}" if error.expected else "", error.fix)
        return ["; ".join(filter(None, parts))]
    return []
