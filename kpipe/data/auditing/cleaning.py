"""The table that is left when what an audit found is mended; no file is touched.

left out    photos that cannot be read; photos under two labels; copies within a label, but for the
            first; photos whose copy or near duplicate lies in a later declared split
renamed     labels that are certainly another spelling, to the most frequent one
kept        near duplicates within a split: the column `similar` says which belong together
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from kpipe.data.auditing.duplicates import conflicting, crossing_splits, repeated
from kpipe.data.image_info import UNREADABLE

__all__ = ["clean"]


def clean(
    table: pd.DataFrame, problems: pd.DataFrame, spelt: Mapping[str, str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mend a table.

    Args:
        table: path, label, split, sha256, similar and what else; rows numbered from 0.
        problems: path, kind, detail of the manifest.
        spelt: label: the spelling to use instead.

    Returns:
        The table that is left, and path, change of all that was done.
    """
    unreadable = problems[problems["kind"].isin(UNREADABLE)]
    changes = [
        (path, f"left out: {kind}")
        for path, kind in zip(unreadable["path"], unreadable["kind"], strict=True)
    ]
    misspelt = table[table["label"].isin(list(spelt))]
    changes += [
        (path, f"label {label!r} becomes {spelt[label]!r}")
        for path, label in zip(misspelt["path"], misspelt["label"], strict=True)
    ]
    table = table.assign(label=table["label"].replace(dict(spelt)))
    # In this order: a photo under two labels must go with all its copies, and of copies in several
    # splits the first one may be the one that goes.
    for reason, rule in (
        ("the same photo has another label", conflicting),
        ("it looks like a photo of a later split", crossing_splits),
        ("a copy within its label", repeated),
    ):
        goes = rule(table)
        changes += [(path, f"left out: {reason}") for path in table["path"][goes]]
        table = table[~goes]
    columns = ["path", "change"]
    return table.reset_index(drop=True), pd.DataFrame(changes, columns=columns).astype("str")
