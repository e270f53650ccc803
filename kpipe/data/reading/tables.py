"""What the cells of a table mean: files, labels, splits, and columns that only travel."""

from __future__ import annotations

import csv
import math
import numbers
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kpipe.data.manifest import COLUMNS, FURTHER_FACTS, Problem
from kpipe.data.reading.folders import SPLIT_NAMES
from kpipe.data.reading.lookup import Lookup, each_once, unlisted
from kpipe.errors import DataError, nearest

__all__ = [
    "class_names",
    "declared_splits",
    "further_columns",
    "listed_paths",
    "missing_cells",
    "read_table",
    "refuse_missing_columns",
    "table_entries",
]

# Options of pandas that say themselves how the cells are separated, or where their names stand.
_LAYOUT = frozenset({"sep", "delimiter", "names", "header", "skiprows", "dialect", "compression"})
_SEPARATORS = (";", "\t", "|", ",")


def read_table(path: Path, options: Mapping[str, Any], columns: Sequence[str] = ()) -> pd.DataFrame:
    """A CSV or TSV file, every cell the text that stands there.

    Args:
        path: a name that ends in .tsv or .tab promises tabs, any other commas; where that does not
            give the columns, but semicolons, tabs, bars or commas do, those separate the cells.
        options: of `pandas.read_csv`.
        columns: that there must be.

    Raises:
        DataError: no such file, or not a table, or one without these columns.
    """
    asked = {"dtype": "str", "keep_default_na": False, **options}
    if not _LAYOUT & options.keys():
        asked["sep"] = _separator(path, columns, options.get("encoding"))
    try:
        table = pd.read_csv(path, **asked)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read as a table",
            expected="a CSV file with a line of column names, in UTF-8",
            received=f"{type(error).__name__}: {error}",
            fix="pass what pandas.read_csv needs to know: sep, names, encoding, ...",
        ) from error
    refuse_missing_columns(table, *columns)
    return table


def _separator(path: Path, columns: Sequence[str], encoding: str | None) -> str:
    usual = "\t" if path.suffix.lower() in (".tsv", ".tab") else ","
    try:
        with path.open(encoding=encoding or "utf-8-sig", newline="") as file:
            first = file.readline()
        for sign in (usual, *_SEPARATORS):
            if set(columns) <= set(next(csv.reader([first.rstrip("\r\n")], delimiter=sign), [])):
                return sign
    except (OSError, ValueError, LookupError, csv.Error):
        # Whatever this is, reading the table tells.
        return usual
    return usual


def refuse_missing_columns(df: pd.DataFrame, *columns: str) -> None:
    """Raises a DataError that names the columns which the table lacks."""
    names = [str(name) for name in df.columns]
    absent = [column for column in dict.fromkeys(columns) if column not in df.columns]
    if absent:
        raise DataError(
            f"the table has no column {', '.join(map(repr, absent))}",
            received=f"columns {', '.join(names)}",
            fix="; ".join(nearest(str(column), names) for column in absent),
        )


def listed_paths(column: pd.Series, files: Lookup) -> list[str]:
    """Absolute paths, "" where the cell is empty."""
    return [
        ""
        if gone
        else files.find(os.fspath(value) if isinstance(value, os.PathLike) else str(value))
        for value, gone in zip(column, missing_cells(column), strict=True)
    ]


def missing_cells(column: pd.Series) -> list[bool]:
    """Whether each cell is empty."""
    return [bool(pd.isna(value)) or str(value).strip() == "" for value in column]


def further_columns(df: pd.DataFrame) -> pd.DataFrame:
    """The columns that the manifest does not fill itself, as text."""
    names = [name for name in df.columns if name not in (*COLUMNS, *FURTHER_FACTS)]
    return pd.DataFrame(
        {str(name): ["" if pd.isna(value) else str(value) for value in df[name]] for name in names},
        index=df.index,
    )


def _canonical(value: Any) -> str:
    """One text for one label: a number by its value, anything else as it stands.

    >>> _canonical("0.0"), _canonical(0), _canonical("shirt ")
    ('0', '0', 'shirt')
    """
    text = str(value).strip()
    if isinstance(value, bool) or not isinstance(value, numbers.Number | str):
        return text
    try:
        number = float(text)
    except ValueError:
        return text
    if not math.isfinite(number):
        return text
    return str(int(number)) if number.is_integer() else repr(number)


def class_names(
    column: pd.Series,
    files: list[str],
    classes: Mapping[Any, str] | None,
    problems: list[Problem],
) -> list[str]:
    """The class of each row, "" where it has none (which is added to the problems).

    Args:
        column: the labels.
        files: of the same rows.
        classes: {label: class name}, or none.
        problems: rows without a class are added to it.

    Raises:
        DataError: two declared labels that are one, or declared labels that no row has.
    """
    declared = {_canonical(value): name for value, name in (classes or {}).items()}
    if classes is not None and len(declared) < len(classes):
        raise DataError(
            "two declared labels are the same",
            received=", ".join(map(repr, classes)),
            fix="numbers are compared by value: 0, 0.0 and '0.0' are one label",
        )
    found, seen = [], set()
    for path, value, gone in zip(files, column, missing_cells(column), strict=True):
        key = "" if gone else _canonical(value)
        seen.add(key)
        if gone:
            problems.append((path, "no label", "the cell is empty"))
            found.append("")
        elif classes is None:
            found.append(value if isinstance(value, str) else key)
        else:
            if key not in declared:
                problems.append((path, "label not declared", repr(value)))
            found.append(declared.get(key, ""))
    absent = sorted(set(declared) - seen)
    if absent:
        labels = sorted(seen - {""})
        raise DataError(
            f"no row has the label {', '.join(map(repr, absent))}",
            expected="declared labels that stand in the table",
            received=f"labels {', '.join(labels[:20])}{', ...' if len(labels) > 20 else ''}",
        )
    return found


def declared_splits(df: pd.DataFrame) -> list[str]:
    """The split of each row, "" where the column "split" declares none.

    Raises:
        DataError: words that are no split.
    """
    if "split" not in df.columns:
        return [""] * len(df)
    cells = ["" if pd.isna(value) else str(value).strip().lower() for value in df["split"]]
    strange = sorted({cell for cell in cells if cell and cell not in SPLIT_NAMES})
    if strange:
        raise DataError(
            f"the column 'split' holds {', '.join(map(repr, strange))}",
            expected=", ".join(SPLIT_NAMES) + ", or nothing",
            fix="write these words, or rename the column if it means something else",
        )
    return [SPLIT_NAMES.get(cell, "") for cell in cells]


def table_entries(
    tables: Iterable[tuple[Path, pd.DataFrame]],
    columns: tuple[str, str],
    root: str | Path | None,
    classes: Mapping[Any, str] | None,
    problems: list[Problem],
) -> pd.DataFrame:
    """What the rows of some tables list: path, label, split and further columns.

    Args:
        tables: each with the folder that its relative files are under.
        columns: of the files, and of the labels.
        root: that folder for all of them.
        classes: as in `from_dataframe`.
        problems: what is set aside is added to it.
    """
    image, label = columns
    files: list[str] = []
    for base, table in tables:
        lookup = Lookup(base if root is None else root)
        files += listed_paths(table[image], lookup)
        problems += lookup.problems
    df = pd.concat([table for _, table in tables], ignore_index=True)
    entries = further_columns(df.drop(columns=[image, label])).assign(
        path=pd.Series(files, df.index, dtype="str"),
        label=class_names(df[label], files, classes, problems),
        split=declared_splits(df),
    )
    problems += [
        ("", "no file named", f"label {name!r}")
        for name, gone in zip(entries["label"], missing_cells(df[image]), strict=True)
        if gone
    ]
    problems += unlisted(files, root)
    return each_once(entries[(entries["path"] != "") & (entries["label"] != "")], problems)
