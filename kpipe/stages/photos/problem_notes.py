"""Notes in the journal on photos that were set aside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kpipe.core.journal import Journal
from kpipe.printable import printable, shortened

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["record_problems"]

_SHOWN = 3
_LONG = 300


def record_problems(problems: pd.DataFrame, journal: Journal) -> None:
    """Record one note for each kind of problem; the report lists all of them.

    Args:
        problems: path, kind, detail.
        journal: of the stage.
    """
    for kind, found in problems.groupby("kind", sort=True):
        first = found.head(_SHOWN)
        named = [
            shortened(printable(f"{path} ({detail})" if path else detail), _LONG)
            for path, detail in zip(first["path"], first["detail"], strict=True)
        ]
        more = f", and {len(found) - len(named)} more" if len(found) > len(named) else ""
        journal.record("note", text=f"{len(found)} x {kind}: {', '.join(named)}{more}")
