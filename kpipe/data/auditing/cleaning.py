"""Clean a table from what an audit found; no file is touched.

left out    photos that cannot be read; photos under two labels; copies within a label, except the
            first; photos whose copy or near duplicate lies in a later declared split
renamed     labels that are certainly another spelling, to the most frequent one
kept        near duplicates within a split: the column `similar` groups them
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from kpipe.data.auditing.duplicates import conflicting, crossing_splits, repeated
from kpipe.data.image_info import UNREADABLE

__all__ = ["clean"]


def clean(
    table: pd.DataFrame, problems: pd.DataFrame, spelling: Mapping[str, str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Clean a table.

    Args:
        table: path, label, split, sha256, similar and further columns; rows numbered from 0.
        problems: path, kind, detail of the manifest's problems.
        spelling: {label: spelling to use instead}.

    Returns:
        The cleaned table, and path, change of each change.
    """
    unreadable = problems[problems["kind"].isin(UNREADABLE)]
    changes = [
        (path, f"left out: {kind}")
        for path, kind in zip(unreadable["path"], unreadable["kind"], strict=True)
    ]
    misspelt = table[table["label"].isin(list(spelling))]
    changes += [
        (path, f"label {label!r} becomes {spelling[label]!r}")
        for path, label in zip(misspelt["path"], misspelt["label"], strict=True)
    ]
    table = table.assign(label=table["label"].replace(dict(spelling)))
    # In this order: a photo under two labels is dropped with all its copies, and of copies in
    # several splits the first may be the one to drop.
    for reason, rule in (
        ("the same photo has another label", conflicting),
        ("it looks like a photo of a later split", crossing_splits),
        ("a copy within its label", repeated),
    ):
        dropped = rule(table)
        changes += [(path, f"left out: {reason}") for path in table["path"][dropped]]
        table = table[~dropped]
    columns = ["path", "change"]
    return table.reset_index(drop=True), pd.DataFrame(changes, columns=columns).astype("str")
