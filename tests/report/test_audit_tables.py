from __future__ import annotations

import io
import re

import pandas as pd
from rich.console import Console
from rich.table import Table

from kpipe.data.manifest import problem_table
from kpipe.report.audit_findings import findings
from kpipe.report.audit_tables import classes_table, findings_table


def drawn(table: Table) -> str:
    stream = io.StringIO()
    Console(file=stream, width=100).print(table)
    return stream.getvalue()


def classes(counts: dict[str, int], **splits: int) -> pd.DataFrame:
    photos = pd.Series(counts)
    none = dict.fromkeys(("train", "validation", "test"), 0)
    return pd.DataFrame({"photos": photos, "share": photos / photos.sum(), **none, **splits})


def test_classes_come_by_size_with_their_shares() -> None:
    text = drawn(classes_table(classes({"b [x]": 10, "a": 30}), 3.0))
    assert "2 classes, the largest 3.0 times the smallest" in text
    rows = [line.split() for line in text.splitlines() if "%" in line]
    assert [row[:-1] for row in rows] == [["a", "30", "75.0%"], ["b", "[x]", "10", "25.0%"]]
    assert len(rows[0][-1]) == 3 * len(rows[1][-1]) + 1  # 16 and 5 blocks
    assert "train" not in text


def test_declared_splits_have_their_columns() -> None:
    text = drawn(classes_table(classes({"a": 30, "b": 10}, train=9, test=1), 3.0))
    assert "train" in text and "test" in text and "validation" not in text


def test_many_classes_are_abbreviated_to_both_ends() -> None:
    text = drawn(
        classes_table(classes({f"c{number:03}": 500 - number for number in range(100)}), 1)
    )
    assert "... 60 more ..." in text
    assert all(name in text for name in ("c000", "c019", "c080", "c099"))
    assert "c020" not in text and "c079" not in text


def test_a_table_without_classes_is_possible() -> None:
    assert "0 classes" in drawn(classes_table(classes({}), float("nan")))


def test_findings_show_their_number_and_examples() -> None:
    rows = [(f"/p/{number}.png", "truncated", f"why /p/{number}") for number in range(5)]
    text = drawn(findings_table(findings(problem_table([*rows, ("", "hidden", "[b]")])), "/p"))
    assert re.search(r"truncated +5 +0.png: why 0", text)
    assert "2.png: why 2" in text and "3.png" not in text
    assert "[b]" in text
