"""What the cells of a table mean: files, labels, splits, and columns that only travel."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from kpipe.data.folders import SPLIT_NAMES
from kpipe.data.manifest import COLUMNS
from kpipe.data.scanning import Problem
from kpipe.errors import DataError, nearest

__all__ = [
    "class_names",
    "declared_splits",
    "further_columns",
    "listed_paths",
    "missing_cells",
    "read_table",
    "refuse_missing_columns",
]


def read_table(path: Path, options: Mapping[str, Any]) -> pd.DataFrame:
    """A CSV or TSV file, every cell the text that stands there.

    Raises:
        DataError: no such file, or not a table.
    """
    asked = {"dtype": "str", "keep_default_na": False, **options}
    if path.suffix.lower() in (".tsv", ".tab"):
        asked.setdefault("sep", "\t")
    try:
        return pd.read_csv(path, **asked)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read as a table",
            expected="a CSV file with a line of column names",
            received=f"{type(error).__name__}: {error}",
            fix="pass what pandas.read_csv needs to know: sep, names, encoding, ...",
        ) from error


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


def listed_paths(column: pd.Series, root: str | Path | None) -> list[str]:
    """Absolute paths, "" where the cell is empty."""
    base = Path(os.path.abspath(root if root is not None else "."))
    # Joined with an absolute file, the base steps aside.
    return [
        "" if gone else os.path.normpath(base / _text(value))
        for value, gone in zip(column, missing_cells(column), strict=True)
    ]


def missing_cells(column: pd.Series) -> list[bool]:
    """Whether each cell is empty."""
    return [bool(pd.isna(value)) or str(value).strip() == "" for value in column]


def _text(value: Hashable) -> str:
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def further_columns(df: pd.DataFrame) -> pd.DataFrame:
    """The columns that the manifest does not fill itself, as text."""
    names = [name for name in df.columns if name not in COLUMNS]
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
