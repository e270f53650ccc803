"""Several classifiers that answer as one."""

from __future__ import annotations

from kpipe._lazy import lazy

__all__ = ["average", "vote"]
__getattr__, __dir__ = lazy(__name__, {"average": "combination", "vote": "combination"})
