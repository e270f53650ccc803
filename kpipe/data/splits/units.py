"""Group photos that must stay together in one split.

unit := photos connected by: the same bytes (sha256); the same appearance (the column `similar`, if
        there is one); the same text in the group column, if one is named
key  := the smallest group text of a unit, else its smallest sha256
u    := the first 53 bits of sha256(seed, key), as a number in [0, 1)
"""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from kpipe.data.manifest import SPLITS, Problem
from kpipe.errors import DataError, nearest

__all__ = ["connected", "crossing", "numbers", "refuse_torn"]

_SHOWN = 20


def connected(table: pd.DataFrame, group: str | None) -> np.ndarray:
    """Return the unit of each row, (rows,) integers from 0.

    Raises:
        DataError: if the table lacks the group column.
    """
    if group is not None and group not in table:
        raise DataError(
            f"the manifest has no column {group!r} to group by",
            fix=nearest(group, [str(name) for name in table]),
        )
    ties = [table["sha256"]]
    ties += [_filled(table["similar"])] if "similar" in table else []
    ties += [_filled(table[group])] if group is not None else []
    rows, links, first = [], [], len(table)
    for tie in ties:
        found, names = pd.factorize(tie)  # -1 without text
        tied = np.flatnonzero(found >= 0)
        rows.append(tied)
        links.append(found[tied] + first)
        first += len(names)
    where = (np.concatenate(rows), np.concatenate(links))
    graph = coo_array((np.ones(len(where[0]), np.int8), where), shape=(first, first))
    return pd.factorize(connected_components(graph, directed=False)[1][: len(table)])[0]


def _filled(column: pd.Series) -> pd.Series:
    text = column.astype("str")
    return text.where(text != "")


def numbers(table: pd.DataFrame, units: np.ndarray, group: str | None, seed: int) -> np.ndarray:
    """Return the number u of each row's unit, (rows,) float64 in [0, 1)."""
    keys = ("file " + table["sha256"]).groupby(units).min()
    if group is not None:
        named = ("group " + _filled(table[group])).groupby(units).min()
        keys = named.fillna(keys)
    drawn = [hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8] for key in keys]
    return np.array([(int.from_bytes(first) >> 11) / 2**53 for first in drawn])[units]


def crossing(table: pd.DataFrame, places: np.ndarray) -> tuple[np.ndarray, list[Problem]]:
    """Find photos with a copy or near duplicate in a later split.

    Args:
        table: table of the manifest.
        places: (rows,) indices of splits in SPLITS, -1 for none.

    Returns:
        Whether each row is such a photo, (rows,) bool, and a problem for each.
    """
    found = np.zeros(len(table), bool)
    problems: list[Problem] = []
    ties = {"copy": pd.factorize(table["sha256"])[0], "near duplicate": connected(table, None)}
    for kind, tie in ties.items():
        left = pd.DataFrame({"tie": tie, "place": places, "path": table["path"]})
        left = left[~found & (places >= 0)].sort_values("place", kind="stable")
        last = left.groupby("tie")[["place", "path"]].transform("last")
        leaks = left.assign(last=last["place"], like=last["path"])
        leaks = leaks[leaks["place"] < leaks["last"]].sort_index()
        columns = (leaks[name].tolist() for name in ("path", "place", "last", "like"))
        problems += [
            (
                path,
                f"{kind} in another split",
                f"set aside from {SPLITS[place]}, kept in {SPLITS[kept]}: {like}",
            )
            for path, place, kept, like in zip(*columns, strict=True)
        ]
        found[leaks.index] = True
    return found, problems


def refuse_torn(
    places: np.ndarray, units: np.ndarray, table: pd.DataFrame, group: str | None
) -> None:
    """Raise a DataError if groups are in several fixed splits; `crossing` is set aside before."""
    fixed = pd.Series(places).where(places >= 0)
    torn = (fixed.groupby(units).transform("nunique") > 1).to_numpy()
    if torn.any():
        names = sorted({str(name) for name in table[group][torn]} - {""})
        raise DataError(
            f"{len(names)} groups of column {group!r} cross the declared splits",
            expected="each group in one split, as declared or as in the earlier run",
            received=", ".join(map(repr, names[:_SHOWN])) + (", ..." if names[_SHOWN:] else ""),
            fix="correct the declared splits, or split without group=",
        )
