"""Photos that are in a manifest more than once.

                     same bytes                looks the same (column `similar`)
same label           exact duplicate           near duplicate
different labels     same photo, two labels    same photo, two labels
different splits     duplicates cross splits   duplicates cross splits
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from kpipe.data.manifest import SPLITS, Problem

__all__ = ["conflicting", "crossing_splits", "duplicate_problems", "repeated"]

Alikeness = Callable[[Sequence[int], Sequence[int]], np.ndarray]


def duplicate_problems(table: pd.DataFrame, alikeness: Alikeness) -> list[Problem]:
    """What is wrong, by path.

    Args:
        table: path, label (one spelling each), split, sha256, similar; rows numbered from 0.
        alikeness: from rows and as many other rows to how alike their photos are, in [0, 1].
    """
    several = _several(table)
    return [
        *_copies(several),
        *_near_copies(several, alikeness),
        *_conflicts(several[conflicting(several)], alikeness),
        *_crossings(several[several["split"] != ""]),
    ]


def repeated(table: pd.DataFrame) -> pd.Series:
    """Rows whose bytes stand in an earlier row with the same label, as (rows,) bool."""
    return table.duplicated(["sha256", "label"])


def conflicting(table: pd.DataFrame) -> pd.Series:
    """Rows whose photo, or one that looks the same, has another label too, as (rows,) bool."""
    several = _several(table)
    labels = several.groupby("similar")["label"].transform("nunique")
    return labels.reindex(table.index, fill_value=1) > 1


def crossing_splits(table: pd.DataFrame) -> pd.Series:
    """Rows whose photo, or one that looks the same, lies in a later declared split too."""
    several = _several(table[table["split"] != ""])
    rank = several["split"].map(SPLITS.index)
    earlier = rank < rank.groupby(several["similar"]).transform("max")
    return earlier.reindex(table.index, fill_value=False)


def _several(table: pd.DataFrame) -> pd.DataFrame:
    return table[table.duplicated("similar", keep=False)]


def _copies(several: pd.DataFrame) -> list[Problem]:
    first = several.groupby(["sha256", "label"])["path"].transform("first")
    again = repeated(several)
    return [
        (path, "exact duplicate", f"the same bytes as {other}")
        for path, other in zip(several["path"][again], first[again], strict=True)
    ]


def _near_copies(several: pd.DataFrame, alikeness: Alikeness) -> list[Problem]:
    distinct = several[~repeated(several)]
    rows = distinct.index.to_series()
    first = rows.groupby([distinct["similar"], distinct["label"]]).transform("first")
    pairs = [(row, other) for row, other in zip(rows, first, strict=True) if row != other]
    return [
        (several["path"][row], "near duplicate", f"{how}: {several['path'][other]}")
        for row, other, how in _told(several, pairs, alikeness)
    ]


def _conflicts(disputed: pd.DataFrame, alikeness: Alikeness) -> list[Problem]:
    pairs = []
    for _, group in disputed.groupby("similar", sort=False):
        for row in group.index:
            others = group[group["label"] != group["label"][row]]
            same = others[others["sha256"] == group["sha256"][row]]
            pairs.append((row, (others if same.empty else same).index[0]))
    labels, paths = disputed["label"], disputed["path"]
    return [
        (
            paths[row],
            "same photo, two labels",
            f"{labels[row]!r} here, {labels[other]!r} at {paths[other]} ({how})",
        )
        for row, other, how in _told(disputed, pairs, alikeness)
    ]


def _crossings(declared: pd.DataFrame) -> list[Problem]:
    problems = []
    paths, splits, digests = declared["path"], declared["split"], declared["sha256"]
    earlier = crossing_splits(declared)
    for _, group in declared.groupby("similar", sort=False):
        ranks = group["split"].map(SPLITS.index).tolist()
        last = group.index[ranks.index(max(ranks))]
        for row in group.index[earlier[group.index]]:
            how = "a copy" if digests[row] == digests[last] else "a near duplicate"
            detail = f"{splits[row]}; {how} in {splits[last]}: {paths[last]}"
            problems.append((paths[row], "duplicates cross splits", detail))
    return problems


def _told(
    table: pd.DataFrame, pairs: Sequence[tuple[int, int]], alikeness: Alikeness
) -> list[tuple[int, int, str]]:
    """Each pair, and how it is a pair."""
    scores = alikeness([row for row, _ in pairs], [other for _, other in pairs])
    digests = table["sha256"]
    return [
        # Rounded down: 100 % is of the same bytes alone.
        (row, other, "the same bytes" if same else f"{np.floor(999 * score) / 10:.1f} % alike")
        for (row, other), score in zip(pairs, scores, strict=True)
        for same in [digests[row] == digests[other]]
    ]
