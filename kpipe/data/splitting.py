"""Train, validation, test: stratified, seeded, and decided by content.

    unit := the photos that must stay together (identical files; a group), by position
    each unit, the largest first, then in the order of sha256(seed, its files' sha256), goes to
    the split that lacks most photos of its classes

So the result depends on the files' bytes, labels and groups, never on paths or row order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from kpipe.data.manifest import SPLITS, Manifest, problem_table
from kpipe.data.scanning import Problem
from kpipe.errors import DataError, nearest

__all__ = ["split"]


def split(
    manifest: Manifest,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    group: str | None = None,
) -> Manifest:
    """Put every photo into train, validation or test.

    Splits that the source declared are kept. A split that it did not declare is cut from train,
    and photos without a split are shared out; both are noted in `.problems`. Where identical
    files lie in several declared splits, only those of the last (test, then validation) stay; the
    others are set aside in `.problems`.

    Args:
        manifest: the photos.
        fractions: shares of train, validation and test; they sum to 1. Counts are rounded by
            largest remainder in each class; a class has at least one photo in each split.
        seed: another seed, another split.
        group: column of `manifest.table`; photos with the same text in it stay together. An empty
            text groups nothing.

    Returns:
        A new manifest with every `split` filled.

    Raises:
        DataError: bad fractions, an unknown column, groups that cross declared splits, or classes
            that are too small to be in each split.
    """
    shares = _shares(fractions)
    table, problems = _without_crossing_copies(manifest.table)
    units = _units(table, group)
    places = np.array([SPLITS.index(name) if name else -1 for name in table["split"]], np.int64)
    _refuse_torn(places, units, table, group)
    places, opened, notes = _opened(places, shares)
    # Photos to be shared out follow the decided ones of their unit.
    decided = pd.Series(places).groupby(units).transform("max")
    places = np.where(places < 0, decided, places)
    classes = np.array([manifest.classes.index(name) for name in table["label"]], np.int64)
    places = _shared_out(places, units, classes, _order(table, units, seed), shares, opened)
    result = table.assign(split=[SPLITS[place] for place in places])
    made = Manifest(
        result.astype({"split": "str"}),
        manifest.classes,
        pd.concat([manifest.problems, problem_table(problems + notes)], ignore_index=True),
    )
    _refuse_empty(made, shares)
    return made


def _shares(fractions: Sequence[float]) -> np.ndarray:
    shares = np.asarray(fractions, float)
    right = shares.shape == (3,) and (shares >= 0).all() and shares[0] > 0
    if not right or abs(shares.sum() - 1) > 1e-6:
        raise DataError(
            "the fractions of a split are wrong",
            expected="shares of train (above 0), validation and test that sum to 1",
            received=str(tuple(fractions)),
        )
    return shares


def _without_crossing_copies(table: pd.DataFrame) -> tuple[pd.DataFrame, list[Problem]]:
    """Drop copies that a later declared split holds too, and say so."""
    rank = table["split"].map({"": -1, **{name: place for place, name in enumerate(SPLITS)}})
    last = rank.groupby(table["sha256"]).transform("max")
    crossing = (rank >= 0) & (rank < last)
    problems: list[Problem] = [
        (path, "copy in another split", f"set aside from {name}, kept in {SPLITS[kept]}")
        for path, name, kept in zip(
            table["path"][crossing], table["split"][crossing], last[crossing], strict=True
        )
    ]
    return table[~crossing].reset_index(drop=True), problems


def _opened(places: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, list[int], list[Problem]]:
    """Which photos are to be shared out (place -1), among which splits, and what to say of it."""
    free = places < 0
    every = np.flatnonzero(shares > 0).tolist()
    if free.all():
        return places, every, []
    if free.any():
        note = f"{int(free.sum())} photos without a split are shared out"
        return places, every, [("", "split not declared", note)]
    lacking = [place for place in every if not (places == place).any()]
    if not lacking:
        return places, every, []
    train = places == 0
    notes: list[Problem] = [
        ("", "split not declared", f"{SPLITS[place]} is cut from train, of {train.sum()}")
        for place in lacking
    ]
    return np.where(train, -1, places), [0, *lacking], notes


def _units(table: pd.DataFrame, group: str | None) -> np.ndarray:
    """The unit of each row, as (rows,) integers."""
    files = pd.factorize(table["sha256"])[0]
    if group is None:
        return files
    if group not in table:
        raise DataError(
            f"the manifest has no column {group!r} to group by",
            fix=nearest(group, [str(name) for name in table]),
        )
    named = (table[group] != "").to_numpy()
    groups = pd.factorize(table[group])[0] + files.max() + 1
    size = int(groups.max()) + 1
    links = coo_array((np.ones(named.sum()), (files[named], groups[named])), shape=(size, size))
    return connected_components(links, directed=False)[1][files]


def _refuse_torn(
    places: np.ndarray, units: np.ndarray, table: pd.DataFrame, group: str | None
) -> None:
    """Groups in several declared splits; identical files are out of the way by now."""
    declared = pd.Series(places).where(places >= 0)
    torn = (declared.groupby(units).transform("nunique") > 1).to_numpy()
    if torn.any():
        names = sorted({str(name) for name in table[group][torn]} - {""})
        raise DataError(
            f"{len(names)} groups of column {group!r} cross the declared splits",
            received=", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else ""),
            fix="mend the declared splits, or split without group=",
        )


def _order(table: pd.DataFrame, units: np.ndarray, seed: int) -> list[np.ndarray]:
    """The rows of each unit: the largest unit first, then by a hash of seed and content."""
    digests = table["sha256"].to_numpy()
    by_unit = np.argsort(units, kind="stable")
    members = np.split(by_unit, np.flatnonzero(np.diff(units[by_unit])) + 1)

    def key(rows: np.ndarray) -> tuple[int, str]:
        content = ",".join(sorted(digests[rows]))
        return -len(rows), hashlib.sha256(f"{seed}:{content}".encode()).hexdigest()

    return sorted(members, key=key)


def _shared_out(
    places: np.ndarray,
    units: np.ndarray,
    classes: np.ndarray,
    order: list[np.ndarray],
    shares: np.ndarray,
    opened: list[int],
) -> np.ndarray:
    places = places.copy()
    number = int(classes.max()) + 1
    lack = np.full((len(SPLITS), number), -np.inf)
    for index in range(number):
        mine = classes == index
        fixed = np.bincount(places[mine & (places >= 0)], minlength=len(SPLITS))
        wanted = np.maximum(shares * mine.sum() - fixed, 0)[opened]
        if not wanted.sum():
            wanted = shares[opened]
        lack[opened, index] = _rounded(wanted, int((mine & (places < 0)).sum()), fixed[opened] == 0)
    for rows in order:
        if places[rows[0]] >= 0:
            continue
        held = np.bincount(classes[rows], minlength=number)
        present = held > 0
        place = int(np.argmax(lack[:, present] @ held[present]))
        places[rows] = place
        lack[place] -= held
    return places


def _rounded(wanted: np.ndarray, total: int, needed: np.ndarray) -> np.ndarray:
    """Whole numbers that sum to `total`, by largest remainder, at least one where needed."""
    exact = wanted * total / wanted.sum()
    counts = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(-(exact - counts), kind="stable")
    counts[by_remainder[: total - counts.sum()]] += 1
    for place in np.flatnonzero(needed & (counts == 0)):
        richest = int(np.argmax(counts))
        if counts[richest] > 1:
            counts[richest] -= 1
            counts[place] += 1
    return counts


def _refuse_empty(manifest: Manifest, shares: np.ndarray) -> None:
    counts = manifest.counts()
    needed = [name for name, share in zip(SPLITS, shares, strict=True) if share > 0]
    needed += [name for name in SPLITS if name not in needed and counts[name].any()]
    short = counts[(counts[needed] == 0).any(axis=1)]
    if not short.empty:
        rows = [
            f"{name!r}: " + ", ".join(f"{place} {short.loc[name, place]}" for place in needed)
            for name in short.index
        ]
        raise DataError(
            "classes too small, or too much copied or grouped, to be in each split",
            expected=f"at least one photo of each class in {', '.join(needed)}",
            received="\n    ".join(rows),
            fix="add photos of these classes, leave them out, or change the fractions",
        )
