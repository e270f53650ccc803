"""Put every class into every split, if it has enough photos.

rows := a row per photo: path, label; unit, u (see `units`); declared, earlier, place: index of a
        split in SPLITS, or -1; drawn: whether its unit had no split before the draw
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd

from kpipe.data.auditing.spelling import spelling_variants
from kpipe.data.manifest import SPLITS, Manifest, Problem
from kpipe.errors import DataError
from kpipe.printable import printable

__all__ = ["every_class_in", "refuse_absent", "uneven"]

_TRAIN = SPLITS.index("train")
# From this many expected photos, a count that is off by this factor is reported.
_EXPECTED, _FACTOR = 4, 2
_SHOWN = 5


def every_class_in(
    rows: pd.DataFrame, opened: np.ndarray, ends: np.ndarray
) -> tuple[pd.DataFrame, list[Problem]]:
    """Move the nearest unit of a class into each drawn split that has no photo of the class.

    Args:
        rows: rows, as above.
        opened: (splits,) the splits that are drawn.
        ends: (splits,) end of the interval of each split in [0, 1].

    Returns:
        The rows with other places, and a problem for each moved photo. No split loses the last
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
    """Units of a class that may move to a split: drawn units first, then the nearest."""
    mine = rows[rows["unit"].isin(rows["unit"][rows["label"] == label])]
    # A split that the source does not declare may be taken from train.
    cut = (mine["declared"] == _TRAIN) & (mine["earlier"] < 0)
    cut &= bool((rows["declared"] != place).all())
    units = mine.assign(free=mine["drawn"] | cut).groupby("unit")[["free", "drawn", "u"]].min()
    gap = np.maximum(0, np.maximum(start - units["u"], units["u"] - end))
    ordered = units.assign(gap=gap, late=~units["drawn"]).sort_values(["late", "gap", "u"])
    return ordered.index[ordered["free"]].tolist()


def uneven(rows: pd.DataFrame, opened: np.ndarray, ends: np.ndarray) -> list[Problem]:
    """Return a problem for each class with under half or over twice its photos in a split."""
    drawn = rows[rows["drawn"]]
    counts = pd.crosstab(drawn["label"], drawn["place"]).reindex(columns=opened, fill_value=0)
    table = counts.to_numpy()
    totals, fractions = table.sum(axis=1), np.diff(ends, prepend=0.0)
    expected = totals[:, None] * fractions
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


def refuse_absent(
    manifest: Manifest, fractions: np.ndarray, aside: Counter[str], *, declared: bool
) -> None:
    """Raise a DataError, with the counts, if a class is missing from a split.

    Args:
        manifest: the photos with their splits.
        fractions: fractions of the splits.
        aside: class -> photos that were set aside because they are in a later split too.
        declared: whether the source declares splits.
    """
    counts = manifest.counts()
    needed = [name for name, fraction in zip(SPLITS, fractions, strict=True) if fraction > 0]
    needed += [name for name in SPLITS if name not in needed and counts[name].any()]
    short = counts[(counts[needed] == 0).any(axis=1)]
    if short.empty:
        return
    photos = counts.sum(axis=1)
    variants = spelling_variants({name: int(photos[name]) for name in manifest.classes})
    hints = {variant.label: f" (another spelling of {variant.of!r}?)" for variant in variants}
    rows = [
        f"{name!r}{hints.get(name, '')}: "
        + ", ".join(f"{place} {short.loc[name, place]}" for place in needed)
        + (f"; {aside[name]} set aside" if aside[name] else "")
        for name in short.index
    ]
    what = "classes too small, or photos too alike or grouped, to be in each split"
    fix = (
        "add photos of these classes, leave them out, or change the fractions; "
        "`kpipe check --fix` writes a table under one spelling"
    )
    if any(aside[name] for name in short.index):
        kinds = manifest.problems["kind"].str.endswith("in another split")
        shown = manifest.problems[kinds][["path", "detail"]].head(_SHOWN)
        rows += [printable(f"{path}: {detail}") for path, detail in shown.itertuples(index=False)]
        what = (
            f"{aside.total()} photos, or near duplicates of them, are in several splits; without "
            "them, a split lacks a class"
        )
        fix = "declare one split for each photo and its near duplicates, or declare none"
    elif declared:
        what = "a declared split lacks a class"
        fix = (
            "add photos of these classes to that split, or leave the classes out; or let kpipe "
            "make the splits: name one of the split folders as the source, or remove the column "
            "'split' of the table"
        )
    raise DataError(
        what,
        expected=f"at least one photo of each class in {', '.join(needed)}",
        received="\n    ".join(rows),
        fix=fix,
    )
