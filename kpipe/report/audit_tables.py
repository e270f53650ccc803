"""Tables of an audit for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from kpipe.data import SPLITS
from kpipe.printable import printable, shortened
from kpipe.report.audit_findings import Finding, shorten_paths

__all__ = ["classes_table", "findings_table"]

_SHOWN = 3
_BAR = 16
# Of more classes, only the largest and the smallest are listed.
_CLASSES = 40
# Characters of a class name, and of a finding.
_NAME, _DETAIL = 60, 400


def findings_table(found: Sequence[Finding], base: str) -> Table:
    """Return a table of findings by kind, with counts and examples.

    Args:
        found: the findings, most serious first.
        base: the folder that paths are relative to.
    """
    table = Table("kind", "", "examples", box=box.SIMPLE_HEAD, title="Findings")
    table.columns[1].justify = "right"
    table.columns[2].overflow = "fold"
    for one in found:
        style = "bold red" if one.serious else "dim"
        examples = Text("\n").join(
            Text(_short(shorten_paths(f"{path}: {detail}" if path else detail, base), _DETAIL))
            for path, detail in one.rows[:_SHOWN]
        )
        table.add_row(Text(printable(one.kind), style), Text(str(len(one.rows)), style), examples)
    return table


def classes_table(classes: pd.DataFrame, imbalance: float) -> Table:
    """Return a table of classes, with their photos and the fraction of all photos.

    Args:
        classes: the table of an `Audit`: photos, share, and a column for each split.
        imbalance: photos of the largest class / photos of the smallest.
    """
    ordered = classes.sort_values("photos", ascending=False, kind="stable")
    splits = [name for name in SPLITS if ordered[name].any()]
    title = f"{len(classes)} classes"
    title += f", the largest {imbalance:.1f} times the smallest" if len(classes) > 1 else ""
    table = Table("class", "photos", "fraction", "", *splits, box=box.SIMPLE_HEAD, title=title)
    for place in (1, 2, *range(4, 4 + len(splits))):
        table.columns[place].justify = "right"
    largest = max(1, int(ordered["photos"].max())) if len(ordered) else 1
    for name, row in _ends(ordered):
        if row is None:
            table.add_row(Text(name, "dim"))
            continue
        bar = "█" * max(1, round(_BAR * row["photos"] / largest))
        numbers = [str(int(row[split])) for split in splits]
        table.add_row(
            Text(_short(name)),
            str(int(row["photos"])),
            f"{row['share']:.1%}",
            Text(bar, "cyan"),
            *numbers,
        )
    return table


def _ends(ordered: pd.DataFrame) -> Iterator[tuple[str, pd.Series | None]]:
    half = _CLASSES // 2
    rows = [(str(name), row) for name, row in ordered.iterrows()]
    if len(rows) <= _CLASSES:
        yield from rows
        return
    yield from rows[:half]
    yield f"... {len(rows) - 2 * half} more ...", None
    yield from rows[-half:]


def _short(text: str, limit: int = _NAME) -> str:
    return shortened(printable(text), limit)
