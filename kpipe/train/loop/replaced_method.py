"""Another method on one object, for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["replaced_method"]


@contextmanager
def replaced_method(owner: Any, name: str, method: Callable[..., Any]) -> Iterator[None]:
    """Use a function in place of a method of one layer or model, and restore what was there."""
    # Set on the object without Keras' __setattr__, which would track it as part of the layer.
    known = vars(owner).get(name)
    object.__setattr__(owner, name, method)
    try:
        yield
    finally:
        object.__delattr__(owner, name)
        if known is not None:
            object.__setattr__(owner, name, known)
