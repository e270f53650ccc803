"""Each class in each split, as far as its photos go.

rows := a row per photo: path, label; unit, u (see units); declared, earlier, place: of a split in
        SPLITS, or -1; drawn: whether its unit had no split but the drawn one
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from kpipe.data.auditing.spelling import spelling_variants
from kpipe.data.manifest import SPLITS, Manifest, Problem
from kpipe.errors import DataError

__all__ = ["every_class_in", "refuse_absent", "uneven"]

_TRAIN = SPLITS.index("train")
# From so many expected photos on, a count that is off by this factor is told.
_EXPECTED, _FACTOR = 4, 2


def every_class_in(
    rows: pd.DataFrame, opened: np.ndarray, ends: np.ndarray
) -> tuple[pd.DataFrame, list[Problem]]:
    """Move the nearest unit of a class into an opened split that has no photo of the class.

    Args:
        rows: as above.
        opened: (splits,) the splits that are drawn.
        ends: (splits,) where the part of each ends in [0, 1]; the parts touch.

    Returns:
        The rows with other places, and a problem for each photo that moved. No split loses the last
        photo of a class.
    """
    rows, problems = rows.copy(), list[Problem]()
    counts = pd.crosstab(rows["label"], rows["place"]).reindex(columns=opened, fill_value=0)
    starts = np.concatenate([[0.0], ends[:-1]])
    for number, column in np.argwhere(counts.to_numpy() == 0):
        label, place = counts.index[number], opened[column]
        if ((rows["label"] == label) & (rows["place"] == place)).any():
            continue
        for unit in _candidates(rows, label, place, starts[column], ends[column]):
            going = rows["unit"] == unit
            left = rows["label"][~going & rows["place"].isin(rows["place"][going])]
            if set(rows["label"][going]) <= set(left):
                kind = "moved to have every class in every split"
                problems += [
                    (path, kind, f"to {SPLITS[place]} from {SPLITS[old]}, for class {label!r}")
                    for path, old in zip(rows["path"][going], rows["place"][going], strict=True)
                ]
                rows.loc[going, "place"] = place
                break
    return rows, problems


def _candidates(rows: pd.DataFrame, label: str, place: int, start: float, end: float) -> list[int]:
    """Units of a class that may move to a split: the drawn ones, the nearest first."""
    mine = rows[rows["unit"].isin(rows["unit"][rows["label"] == label])]
    # Train may be cut for a split that nobody declared.
    cut = (mine["declared"] == _TRAIN) & (mine["earlier"] < 0)
    cut &= bool((rows["declared"] != place).all())
    units = mine.assign(free=mine["drawn"] | cut).groupby("unit")[["free", "drawn", "u"]].min()
    gap = np.maximum(0, np.maximum(start - units["u"], units["u"] - end))
    ordered = units.assign(gap=gap, late=~units["drawn"]).sort_values(["late", "gap", "u"])
    return ordered.index[ordered["free"]].tolist()


def uneven(rows: pd.DataFrame, opened: np.ndarray, ends: np.ndarray) -> list[Problem]:
    """Classes of which a split got less than half or more than twice its share.

    Args:
        rows: as above.
        opened: (splits,) the splits that are drawn.
        ends: (splits,) where the part of each ends in [0, 1].
    """
    drawn = rows[rows["drawn"]]
    counts = pd.crosstab(drawn["label"], drawn["place"]).reindex(columns=opened, fill_value=0)
    table = counts.to_numpy()
    totals, shares = table.sum(axis=1), np.diff(ends, prepend=0.0)
    expected = totals[:, None] * shares
    ratio = table / np.maximum(expected, 1e-9)
    off = (expected >= _EXPECTED) & ((ratio < 1 / _FACTOR) | (ratio > _FACTOR))
    return [
        (
            "",
            "uneven split",
            f"{SPLITS[opened[column]]} has {table[number, column]} photos of class "
            f"{counts.index[number]!r}, {expected[number, column]:.0f} are its share: "
            "another seed draws anew",
        )
        for number, column in np.argwhere(off)
    ]


def refuse_absent(manifest: Manifest, shares: np.ndarray) -> None:
    """Refuse classes that are missing from a split.

    Raises:
        DataError: with their counts.
    """
    counts = manifest.counts()
    needed = [name for name, share in zip(SPLITS, shares, strict=True) if share > 0]
    needed += [name for name in SPLITS if name not in needed and counts[name].any()]
    short = counts[(counts[needed] == 0).any(axis=1)]
    if not short.empty:
        photos = counts.sum(axis=1)
        variants = spelling_variants({name: int(photos[name]) for name in manifest.classes})
        spelt = {variant.label: f" (another spelling of {variant.of!r}?)" for variant in variants}
        rows = [
            f"{name!r}{spelt.get(name, '')}: "
            + ", ".join(f"{place} {short.loc[name, place]}" for place in needed)
            for name in short.index
        ]
        raise DataError(
            "classes too small, or too much alike or grouped, to be in each split",
            expected=f"at least one photo of each class in {', '.join(needed)}",
            received="\n    ".join(rows),
            fix="add photos of these classes, leave them out, or change the fractions; "
            "`kpipe check --fix` writes a table under one spelling",
        )
