"""Give every split a minimum number of photos of each class, where the class has that many.

rows := a row per photo: path, label; unit, u (see `units`); declared, earlier, place: index of a
        split in SPLITS, or -1; drawn: whether its unit had no split before the draw
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

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
    rows: pd.DataFrame, opened: np.ndarray, ends: np.ndarray, minimum: int = 1
) -> tuple[pd.DataFrame, list[Problem]]:
    """Move the nearest units of a class into each drawn split that has too few photos of the class.

    Args:
        rows: rows, as above.
        opened: (splits,) the splits that are drawn.
        ends: (splits,) end of the interval of each split in [0, 1].
        minimum: fewest photos of each class in each drawn split, at least 1.

    Returns:
        The rows with other places, and a problem for each moved photo. No split falls below the
        minimum of a class for another.
    """
    problems: list[Problem] = []
    labels, names = pd.factorize(rows["label"], sort=True)
    place, paths = rows["place"].to_numpy().copy(), rows["path"].to_numpy()
    counts = np.zeros((len(names), len(SPLITS)), int)
    np.add.at(counts, (labels, place), 1)
    members = rows.groupby("unit").indices
    cut = (rows["declared"] == _TRAIN) & (rows["earlier"] < 0)
    units = rows.assign(cut=cut).groupby("unit")[["drawn", "cut", "u"]].min()
    units_of = pd.Series(rows["unit"].to_numpy()).groupby(labels).unique()
    every = "every class" if minimum == 1 else f"{minimum} photos of every class"
    starts = np.concatenate([[0.0], ends[:-1]])
    for number, column in np.argwhere(counts[:, opened] < minimum):
        target = opened[column]
        if counts[number, target] >= minimum:
            continue
        mine = units.loc[np.sort(units_of[number])]
        if (rows["declared"] == target).any():
            mine = mine[mine["drawn"]]
        for unit in _nearest(mine, starts[column], ends[column]):
            going = members[unit]
            source = place[going[0]]
            moved = np.bincount(labels[going], minlength=len(names))
            if source == target or (counts[:, source] - moved < minimum)[moved > 0].any():
                continue
            problems += [
                (
                    path,
                    f"moved to have {every} in every split",
                    f"to {SPLITS[target]} from {SPLITS[source]}, for class {names[number]!r}",
                )
                for path in paths[going]
            ]
            place[going] = target
            counts[:, source] -= moved
            counts[:, target] += moved
            if counts[number, target] >= minimum:
                break
    return rows.assign(place=place), problems


def _nearest(units: pd.DataFrame, start: float, end: float) -> list[int]:
    """Units that may move to a split: drawn units first, then the nearest."""
    # A split that the source does not declare may be taken from train.
    units = units[units["drawn"] | units["cut"]]
    gap = np.maximum(0, np.maximum(start - units["u"], units["u"] - end))
    ordered = units.assign(gap=gap, late=~units["drawn"]).sort_values(["late", "gap", "u"])
    return ordered.index.tolist()


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
            "another seed draws other splits; min_photos sets a minimum",
        )
        for number, column in np.argwhere(off)
    ]


def refuse_absent(
    manifest: Manifest,
    minima: Mapping[str, int],
    aside: Counter[str],
    kept: Counter[str],
    *,
    declared: bool,
) -> None:
    """Raise a DataError, with the counts, if a split has too few photos of a class.

    Args:
        manifest: the photos with their splits.
        minima: fewest photos of each class in each split that must not be empty.
        aside: class -> photos that were set aside because they are in a later split too.
        kept: class -> photos that keep an earlier split.
        declared: whether the source declares splits.
    """
    counts = manifest.counts()
    minima = {name: minima.get(name, 1) for name in SPLITS if name in minima or any(counts[name])}
    needed, most = list(minima), max(minima.values())
    short = counts[(counts[needed] < pd.Series(minima)).any(axis=1)]
    if short.empty:
        return
    photos = counts.sum(axis=1)
    variants = spelling_variants({name: int(photos[name]) for name in manifest.classes})
    hints = {variant.label: f" (another spelling of {variant.of!r}?)" for variant in variants}
    rows = [
        f"{name!r}{hints.get(name, '')}: "
        + ", ".join(f"{place} {short.loc[name, place]}" for place in needed)
        + (f"; {aside[name]} set aside" if aside[name] else "")
        + (f"; {kept[name]} keep an earlier split" if kept[name] else "")
        for name in short.index
    ]
    enough = "be in each split" if most == 1 else f"have {most} photos in each split"
    what = f"classes too small, or photos too alike or grouped, to {enough}"
    fix = (
        "add photos of these classes, leave them out, "
        f"{'or change the fractions' if most == 1 else 'or lower min_photos'}; "
        "`kpipe check --fix` writes a table under one spelling"
    )
    if any(aside[name] for name in short.index):
        kinds = manifest.problems["kind"].str.endswith("in another split")
        shown = manifest.problems[kinds][["path", "detail"]].head(_SHOWN)
        rows += [printable(f"{path}: {detail}") for path, detail in shown.itertuples(index=False)]
        what = (
            f"{aside.total()} photos, or near duplicates of them, are in several splits; without "
            f"them, a split {'lacks' if most == 1 else 'has too few photos of'} a class"
        )
        fix = "declare one split for each photo and its near duplicates, or declare none"
    elif all(kept[name] and photos[name] >= sum(minima.values()) for name in short.index):
        what = f"photos keep their split of before, which leaves too few to {enough}"
        fix = (
            "add photos of these classes, which are shared out, or split without `previous`"
            f"{'' if most == 1 else ', or lower min_photos'}"
        )
    elif declared and (counts[needed] == 0).any(axis=None):
        what = "a declared split lacks a class"
        fix = (
            "add photos of these classes to that split, or leave the classes out; or let kpipe "
            "make the splits of all photos: name the split folders as the sources, as in "
            'Data(("photos/train", "photos/test")); or do not read the column \'split\' of the '
            'table, as in Data(..., csv={"usecols": ["image", "label"]})'
        )
    raise DataError(
        what,
        expected="; ".join(
            f"at least {'one photo' if least == 1 else f'{least} photos'} of each class in "
            + ", ".join(name for name in needed if minima[name] == least)
            for least in sorted(set(minima.values()), reverse=True)
        ),
        received="\n    ".join(rows),
        fix=fix,
    )
