"""Find photos that a manifest holds more than once.

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

Likeness = Callable[[Sequence[int], Sequence[int]], np.ndarray]


def duplicate_problems(table: pd.DataFrame, likeness: Likeness) -> list[Problem]:
    """Return a problem for each duplicate.

    Args:
        table: path, label (in one spelling), split, sha256, similar; rows numbered from 0.
        likeness: returns how alike the photos of rows and of other rows are, in [0, 1].
    """
    duplicates = _duplicates(table)
    return [
        *_copies(duplicates),
        *_near_copies(duplicates, likeness),
        *_conflicts(duplicates[conflicting(duplicates)], likeness),
        *_crossings(duplicates[duplicates["split"] != ""]),
    ]


def repeated(table: pd.DataFrame) -> pd.Series:
    """Return which rows repeat the bytes and label of an earlier row: (rows,) bool."""
    return table.duplicated(["sha256", "label"])


def conflicting(table: pd.DataFrame) -> pd.Series:
    """Return which photos, or their near duplicates, have another label too: (rows,) bool."""
    duplicates = _duplicates(table)
    labels = duplicates.groupby("similar")["label"].transform("nunique")
    return labels.reindex(table.index, fill_value=1) > 1


def crossing_splits(table: pd.DataFrame) -> pd.Series:
    """Return which photos, or their near duplicates, are in a later declared split too."""
    duplicates = _duplicates(table[table["split"] != ""])
    rank = duplicates["split"].map(SPLITS.index)
    earlier = rank < rank.groupby(duplicates["similar"]).transform("max")
    return earlier.reindex(table.index, fill_value=False)


def _duplicates(table: pd.DataFrame) -> pd.DataFrame:
    return table[table.duplicated("similar", keep=False)]


def _copies(duplicates: pd.DataFrame) -> list[Problem]:
    first = duplicates.groupby(["sha256", "label"])["path"].transform("first")
    again = repeated(duplicates)
    return [
        (path, "exact duplicate", f"the same bytes as {other}")
        for path, other in zip(duplicates["path"][again], first[again], strict=True)
    ]


def _near_copies(duplicates: pd.DataFrame, likeness: Likeness) -> list[Problem]:
    distinct = duplicates[~repeated(duplicates)]
    rows = distinct.index.to_series()
    first = rows.groupby([distinct["similar"], distinct["label"]]).transform("first")
    pairs = [(row, other) for row, other in zip(rows, first, strict=True) if row != other]
    return [
        (duplicates["path"][row], "near duplicate", f"{how}: {duplicates['path'][other]}")
        for row, other, how in _described(duplicates, pairs, likeness)
    ]


def _conflicts(disputed: pd.DataFrame, likeness: Likeness) -> list[Problem]:
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
        for row, other, how in _described(disputed, pairs, likeness)
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


def _described(
    table: pd.DataFrame, pairs: Sequence[tuple[int, int]], likeness: Likeness
) -> list[tuple[int, int, str]]:
    """Each pair, and how alike it is."""
    scores = likeness([row for row, _ in pairs], [other for _, other in pairs])
    digests = table["sha256"]
    return [
        # Rounded down: only the same bytes are 100 % alike.
        (row, other, "the same bytes" if same else f"{np.floor(999 * score) / 10:.1f} % alike")
        for (row, other), score in zip(pairs, scores, strict=True)
        for same in [digests[row] == digests[other]]
    ]
