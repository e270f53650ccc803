"""Split photos into train, validation and test so that a photo keeps its split.

    unit  := photos that must stay together; each has a number u in [0, 1), from seed and content
    split := the one whose interval of [0, 1) holds u

    0 |------------- train -------------|-- validation --|-- test --| 1

The split of a photo depends only on its unit, so added photos move no others, except those that
they must stay together with: of two photos that look the same, either may be added first, and
without `previous` nothing shows which was.

The price is that fractions, of the whole set and of each class, hold in expectation, not exactly:
exact fractions would require moving old photos whenever new ones make their split too large. A
declared minimum moves photos of small classes only (see `rare_classes` and docs/decisions.md).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from kpipe.data.manifest import SPLITS, Manifest, Problem, problem_table
from kpipe.data.reading.tables import declared_splits, read_table, refuse_missing_columns
from kpipe.data.splits.rare_classes import every_class_in, refuse_absent, uneven
from kpipe.data.splits.units import connected, crossing, numbers, refuse_torn
from kpipe.errors import DataError
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["earlier_splits", "split"]

_TRAIN, _NONE = SPLITS.index("train"), -1
_SHOWN = 10


@names_wrong_kinds
def split(
    manifest: Manifest,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    group: str | None = None,
    previous: Manifest | str | Path | None = None,
    min_photos: int = 1,
) -> Manifest:
    """Put every photo into train, validation or test.

    Splits that the source declares are kept. A split that it does not declare is taken from train,
    and photos without a split are distributed; `problems` lists both. Where identical files, or
    photos that look the same, are in several declared splits, only those of the last (test, then
    validation) stay; the others are set aside in `problems`.

    If a split has fewer than `min_photos` photos of a class, those whose numbers are nearest to
    that split move to it, and `problems` names them. As the class grows, they may move back;
    `previous` prevents that.

    Args:
        manifest: the photos.
        fractions: fractions of train, validation and test; they sum to 1 and hold in expectation.
        seed: seed of the draw.
        group: column of `manifest.table`; photos with the same text in it stay together. An empty
            text groups nothing.
        previous: an earlier manifest, a folder with its `manifest.csv`, or a CSV file with the
            columns sha256 and split. Its photos keep their split, and photos that must stay
            together with them follow.
        min_photos: fewest photos of each class in each split that is drawn, at least 1. Without it,
            15 % of 60 photos are 5 to 14. The larger it is, the more photos may move back.

    Returns:
        A new manifest with every `split` filled.

    Raises:
        DataError: if the fractions are invalid, the column is unknown, groups cross declared or
            earlier splits, an earlier split cannot be read, or classes are too small to have
            `min_photos` photos in each split.

    Example:
        >>> from kpipe.data import from_folder, split
        >>> manifest = split(from_folder("photos"), (0.6, 0.2, 0.2), seed=7)
        >>> sorted(set(manifest.table["split"]))
        ['test', 'train', 'validation']
    """
    shares = _check_fractions(fractions)
    if min_photos < 1:
        raise DataError(
            "invalid minimum of a split",
            expected="min_photos of at least 1",
            received=f"min_photos={min_photos!r}",
        )
    table, rows = manifest.table, _known(manifest.table, previous)
    aside, problems = crossing(table, rows["known"].to_numpy())
    set_aside = Counter(table["label"][aside])
    table, rows = table[~aside].reset_index(drop=True), rows[~aside].reset_index(drop=True)
    units = connected(table, group)
    refuse_torn(rows["known"].to_numpy(), units, table, group)
    rows = rows.assign(unit=units, u=numbers(table, units, group, seed))

    opened, taken, notes = _open_splits(rows, shares)
    ends = np.cumsum(shares[opened]) / shares[opened].sum()
    interval = np.minimum(np.searchsorted(ends, rows["u"], side="right"), len(opened) - 1)
    # Photos without a split follow those of their unit with one.
    fixed = rows["known"].mask(taken, _NONE).groupby(units).transform("max")
    rows = rows.assign(drawn=fixed == _NONE, place=fixed.where(fixed != _NONE, opened[interval]))
    rows, moved = every_class_in(rows, opened, ends, min_photos)

    result = table.assign(split=pd.Series([SPLITS[place] for place in rows["place"]], dtype="str"))
    problems += notes + moved + uneven(rows, opened, ends)
    found = pd.concat([manifest.problems, problem_table(problems)], ignore_index=True)
    result_manifest = replace(manifest, table=result, problems=found)
    declared = bool((manifest.table["split"] != "").any())
    minima = {SPLITS[place]: 1 for place in np.flatnonzero(shares)}
    minima |= {SPLITS[place]: min_photos for place in opened}
    kept = Counter(rows["label"][rows["earlier"] != _NONE])
    refuse_absent(result_manifest, minima, set_aside, kept, declared=declared)
    return result_manifest


def _check_fractions(fractions: Sequence[float]) -> np.ndarray:
    shares = np.asarray(fractions, float)
    valid = shares.shape == (3,) and (shares >= 0).all() and shares[0] > 0
    if not valid or abs(shares.sum() - 1) > 1e-6:
        raise DataError(
            "invalid fractions of a split",
            expected="fractions of train (above 0), validation and test that sum to 1",
            received=str(tuple(fractions)),
        )
    return shares


def _known(table: pd.DataFrame, previous: Manifest | str | Path | None) -> pd.DataFrame:
    """Path, label, and the splits of each row: declared, earlier, known (either), or -1."""
    splits = earlier_splits(previous)
    rows = table[["path", "label"]].assign(
        declared=_places(table["split"]),
        earlier=_places([splits.get(sha256, "") for sha256 in table["sha256"]]),
    )
    return rows.assign(known=rows["earlier"].where(rows["earlier"] != _NONE, rows["declared"]))


def _places(names: Iterable[str]) -> np.ndarray:
    return np.array([SPLITS.index(name) if name else _NONE for name in names], np.int64)


def earlier_splits(previous: Manifest | str | Path | None) -> dict[str, str]:
    """Return the split of each sha256 in an earlier manifest.

    Raises:
        DataError: it cannot be read, lacks a column, or has photos in several splits.
    """
    if previous is None:
        return {}
    if isinstance(previous, Manifest):
        table, where = previous.table, "the earlier manifest"
    else:
        path = Path(previous)
        file = path / "manifest.csv" if os.path.isdir(path) else path
        table, where = read_table(file, {}), str(path)
        refuse_missing_columns(table, "sha256", "split")
    pairs = table[["sha256"]].assign(split=declared_splits(table))
    pairs = pairs[pairs["split"] != ""].drop_duplicates()
    twice = sorted(set(pairs["sha256"][pairs["sha256"].duplicated()]))
    if twice:
        raise DataError(
            f"{where} has {len(twice)} photos in several splits",
            expected="one split for each sha256",
            received=", ".join(twice[:_SHOWN]) + (", ..." if twice[_SHOWN:] else ""),
        )
    return dict(zip(pairs["sha256"], pairs["split"], strict=True))


def _open_splits(
    rows: pd.DataFrame, shares: np.ndarray
) -> tuple[np.ndarray, pd.Series, list[Problem]]:
    """The splits to draw, which photos of train are drawn again, and problems to report."""
    every = np.flatnonzero(shares > 0)
    declared, kept = rows["declared"], rows["earlier"] != _NONE
    nothing = pd.Series(False, index=rows.index)
    notes: list[Problem] = []
    if kept.any():
        notes.append(("", "split of before", f"kept by {kept.sum()} of {len(rows)} photos"))
    if (declared == _NONE).all():
        return every, nothing, notes
    lacking = [place for place in every if not (declared == place).any()]
    contrary = kept & (declared != _NONE) & (declared != rows["earlier"])
    contrary &= ~((declared == _TRAIN) & rows["earlier"].isin(lacking))
    found = rows[contrary]
    notes += [
        (path, "split of before", f"{SPLITS[earlier]}, not {SPLITS[place]}")
        for path, earlier, place in zip(
            found["path"], found["earlier"], found["declared"], strict=True
        )
    ]
    free = (declared == _NONE) & ~kept
    if free.any():
        note = f"{int(free.sum())} photos without a split are shared out"
        return every, nothing, [*notes, ("", "split not declared", note)]
    if not lacking or (declared == _NONE).any():
        return every, nothing, notes
    train = declared == _TRAIN
    notes += [
        ("", "split not declared", f"{SPLITS[place]} is cut from train, of {int(train.sum())}")
        for place in lacking
    ]
    return np.array([_TRAIN, *lacking]), train & ~kept, notes
