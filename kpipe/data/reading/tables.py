"""Read the cells of a table: files, labels, splits, and further columns."""

from __future__ import annotations

import csv
import functools
import math
import numbers
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kpipe.data.manifest import COLUMNS, INFO_COLUMNS, Problem
from kpipe.data.reading.folders import SPLIT_NAMES
from kpipe.data.reading.lookup import Lookup, each_once, unlisted
from kpipe.errors import DataError, nearest
from kpipe.printable import name_in_cell, quoted, shortened

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

# Options of pandas that define the separator or the column names.
_LAYOUT = frozenset({"sep", "delimiter", "names", "header", "skiprows", "dialect", "compression"})
_SEPARATORS = (";", "\t", "|", ",")
_SHOWN = 3


def read_table(path: Path, options: Mapping[str, Any], columns: Sequence[str] = ()) -> pd.DataFrame:
    """Read a CSV or TSV file, every cell as text.

    Args:
        path: path of the file. The separator is a tab if the name ends in .tsv or .tab, else a
            comma; or a semicolon, tab, bar or comma if that separates the columns.
        options: options of `pandas.read_csv`.
        columns: required columns.

    Raises:
        DataError: if the file does not exist, is not a table, or lacks these columns.
    """
    _refuse_lists(columns)
    arguments = {"dtype": "str", "keep_default_na": False, **options}
    if not _LAYOUT & options.keys():
        arguments["sep"] = _separator(path, columns, options.get("encoding"))
    try:
        table = pd.read_csv(path, **arguments)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read as a table",
            expected="a CSV file with a line of column names, in UTF-8",
            received=f"{type(error).__name__}: {error}",
            fix="pass options of pandas.read_csv, such as sep, names, encoding",
        ) from error
    refuse_missing_columns(table, *columns)
    if not {"names", "header"} & options.keys():
        # pandas renames the second column of a name.
        _refuse_duplicates(_header(path, arguments), columns)
    return table


def _header(path: Path, arguments: Mapping[str, Any]) -> list[str]:
    try:
        first = pd.read_csv(path, **{**arguments, "header": None, "nrows": 1, "index_col": False})
    except (OSError, ValueError, TypeError):
        # An option that does not go with these: the table itself could be read.
        return []
    return [str(cell) for cell in first.iloc[0]] if len(first) else []


def _separator(path: Path, columns: Sequence[str], encoding: str | None) -> str:
    usual = "\t" if path.suffix.lower() in (".tsv", ".tab") else ","
    try:
        with path.open(encoding=encoding or "utf-8-sig", newline="") as file:
            first = file.readline()
        for sign in (usual, *_SEPARATORS):
            if set(columns) <= set(next(csv.reader([first.rstrip("\r\n")], delimiter=sign), [])):
                return sign
    except (OSError, ValueError, LookupError, csv.Error):
        # Reading the table reports what is wrong.
        return usual
    return usual


def refuse_missing_columns(df: pd.DataFrame, *columns: str) -> None:
    """Raise a DataError that names the columns which the table lacks, or has more than once."""
    _refuse_lists(columns)
    if df.columns.nlevels > 1:
        raise DataError(
            "the table has several levels of column names",
            expected="one level",
            received=quoted(df.columns),
            fix='pass df.set_axis(["_".join(names) for names in df.columns], axis=1)',
        )
    names = [str(name) for name in df.columns]
    absent = [column for column in dict.fromkeys(columns) if column not in df.columns]
    if absent:
        raise DataError(
            f"the table has no column {', '.join(map(repr, absent))}",
            received=f"columns {', '.join(names)}",
            fix="; ".join(nearest(str(column), names) for column in absent),
        )
    _refuse_duplicates(df.columns.tolist(), columns)


def _refuse_lists(columns: Sequence[Any]) -> None:
    for column in columns:
        if not isinstance(column, Hashable):
            raise DataError(
                f"{column!r} is not the name of a column",
                expected="one column with one label per photo",
                fix="for a column per class: df.assign(label=df[columns].idxmax(axis=1)), "
                "if each photo has one label",
            )


def _refuse_duplicates(names: Sequence[Any], columns: Sequence[Any]) -> None:
    duplicates = [column for column in dict.fromkeys(columns) if names.count(column) > 1]
    if duplicates:
        raise DataError(
            f"the table has more than one column {quoted(duplicates)}",
            expected="columns of different names: one label per photo",
            received=f"columns {', '.join(map(str, names))}",
            fix="rename or remove the other column",
        )


def refuse_several(df: pd.DataFrame, *columns: str) -> None:
    """Raise a DataError if cells of a column hold several values."""
    for column in columns:
        several = [value for value in df[column] if pd.api.types.is_list_like(value)]
        if several:
            raise DataError(
                f"{len(several)} of {len(df)} cells of column {column!r} hold several values",
                expected="one label per photo, and one file",
                received=quoted(several, _SHOWN),
                fix="keep one value in each cell; leave out photos with several labels",
            )


def listed_paths(column: pd.Series, files: Lookup) -> list[str]:
    """Return absolute paths, "" for an empty cell; each name is looked up once."""
    find = functools.cache(files.find)
    return [
        "" if empty else find(os.fspath(value) if isinstance(value, os.PathLike) else str(value))
        for value, empty in zip(column, missing_cells(column), strict=True)
    ]


def missing_cells(column: pd.Series) -> list[bool]:
    """Return whether each cell is empty."""
    return [bool(pd.isna(value)) or str(value).strip() == "" for value in column]


def further_columns(df: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that the manifest does not fill itself, as text."""
    names = [name for name in df.columns if name not in (*COLUMNS, *INFO_COLUMNS)]
    return pd.DataFrame(
        {
            str(name): ["" if pd.isna(value) else name_in_cell(str(value)) for value in df[name]]
            for name in names
        },
        index=df.index,
    )


def _canonical(value: Any) -> str:
    """The same text for the same label: numbers by value, other text unchanged.

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
    """Return the class of each row; rows with none get "" and are added to the problems.

    Raises:
        DataError: if two declared labels are the same, or no row has a declared label.
    """
    declared = {_canonical(value): name for value, name in (classes or {}).items()}
    if classes is not None and len(declared) < len(classes):
        raise DataError(
            "two declared labels are the same",
            received=quoted(classes),
            fix="numbers are compared by value: 0, 0.0 and '0.0' are one label",
        )
    found, seen = [], set()
    for path, cell, empty in zip(files, column, missing_cells(column), strict=True):
        value = name_in_cell(cell) if isinstance(cell, str) else cell
        key = "" if empty else _canonical(value)
        if key not in declared and _canonical(cell) in declared:
            key = _canonical(cell)  # declared as the table has it
        seen.add(key)
        if empty:
            problems.append((path, "no label", "the cell is empty"))
            found.append("")
        elif classes is None:
            found.append(value if isinstance(value, str) else key)
        else:
            if key not in declared:
                problems.append((path, "label not declared", shortened(repr(cell))))
            found.append(declared.get(key, ""))
    absent = sorted(set(declared) - seen)
    if absent:
        labels = sorted(seen - {""})
        raise DataError(
            f"no row has the label {quoted(absent)}",
            expected="declared labels that appear in the table",
            received=f"labels {quoted(labels)}",
        )
    return found


def declared_splits(df: pd.DataFrame) -> list[str]:
    """Return the split of each row, "" where the column "split" declares none.

    Raises:
        DataError: if a cell names no split.
    """
    if "split" not in df.columns:
        return [""] * len(df)
    cells = ["" if pd.isna(value) else str(value).strip().lower() for value in df["split"]]
    unknown = sorted({cell for cell in cells if cell and cell not in SPLIT_NAMES})
    if unknown:
        raise DataError(
            f"the column 'split' holds {quoted(unknown)}",
            expected=", ".join(SPLIT_NAMES) + ", or nothing",
            fix="use these words, or rename the column if it means something else",
        )
    return [SPLIT_NAMES.get(cell, "") for cell in cells]


def table_entries(
    tables: Iterable[tuple[Path, pd.DataFrame]],
    columns: tuple[str, str],
    root: str | Path | None,
    classes: Mapping[Any, str] | None,
    problems: list[Problem],
) -> pd.DataFrame:
    """Return the entries of tables: path, label, split and further columns.

    Args:
        tables: tables, each with the folder of its relative paths, if `root` is None.
        columns: the columns of files and of labels.
        root: folder of relative paths for all tables.
        classes: see `from_dataframe`.
        problems: list to which rows that are set aside are added.
    """
    image, label = columns
    tables = list(tables)
    for _, table in tables:
        _refuse_duplicates(table.columns.tolist(), table.columns.tolist())
        refuse_several(table, *columns)
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
        ("", "no file named", f"label {shortened(repr(name))}")
        for name, empty in zip(entries["label"], missing_cells(df[image]), strict=True)
        if empty
    ]
    problems += unlisted(files, root)
    return each_once(entries[(entries["path"] != "") & (entries["label"] != "")], problems)
