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
    # Rather a photo of the same bytes than one that looks the same.
    same = _first_of_another_label(disputed, "sha256")
    others = same.fillna(_first_of_another_label(disputed, "similar")).astype(int)
    others = others[_by_group(disputed)]
    pairs = list(zip(others.index.tolist(), others.tolist(), strict=True))
    labels, paths = disputed["label"].to_dict(), disputed["path"].to_dict()
    return [
        (
            paths[row],
            "same photo, two labels",
            f"{labels[row]!r} here, {labels[other]!r} at {paths[other]} ({how})",
        )
        for row, other, how in _described(disputed, pairs, likeness)
    ]


def _first_of_another_label(table: pd.DataFrame, key: str) -> pd.Series:
    """The first row with the same key and another label: (rows,), NaN if there is none."""
    rows, labels = table.index.to_series(), table["label"].to_numpy()
    first = rows.groupby(table[key]).transform("first")
    differs = labels != table["label"][first].to_numpy()
    second = rows.where(differs).groupby(table[key]).transform("first")
    return first.where(differs, second)


def _by_group(table: pd.DataFrame) -> pd.Index:
    """The rows, sorted so that photos that look the same are adjacent."""
    rows = table.index.to_series()
    return rows.groupby(table["similar"]).transform("first").sort_values(kind="stable").index


def _crossings(declared: pd.DataFrame) -> list[Problem]:
    columns = ("path", "split", "sha256")
    paths, splits, digests = (declared[name].to_dict() for name in columns)
    ranks = declared["split"].map(SPLITS.index)
    in_last = ranks == ranks.groupby(declared["similar"]).transform("max")
    rows = declared.index.to_series()
    last = rows.where(in_last).groupby(declared["similar"]).transform("first").astype(int)
    problems = []
    ordered = _by_group(declared)
    for row in ordered[~in_last[ordered]]:
        other = last[row]
        how = "a copy" if digests[row] == digests[other] else "a near duplicate"
        detail = f"{splits[row]}; {how} in {splits[other]}: {paths[other]}"
        problems.append((paths[row], "duplicates cross splits", detail))
    return problems


def _described(
    table: pd.DataFrame, pairs: Sequence[tuple[int, int]], likeness: Likeness
) -> list[tuple[int, int, str]]:
    """Each pair with its similarity; equal contents are compared once."""
    digests = table["sha256"].to_dict()
    contents = {(digests[row], digests[other]): (row, other) for row, other in pairs}
    unlike = {key: pair for key, pair in contents.items() if key[0] != key[1]}
    scores = likeness([row for row, _ in unlike.values()], [other for _, other in unlike.values()])
    # Rounded down: only the same bytes are 100 % alike.
    alike = {
        key: f"{np.floor(999 * score) / 10:.1f} % alike"
        for key, score in zip(unlike, scores, strict=True)
    }
    return [
        (row, other, alike.get((digests[row], digests[other]), "the same bytes"))
        for row, other in pairs
    ]
