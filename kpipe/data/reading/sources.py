"""Where photos and labels come from.

from_folder       root/class/photo, or root/train|validation|test/class/photo; or several roots
from_csv          a table on disk with a column of files and a column of labels; or several
from_dataframe    the same table in memory
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kpipe.data.manifest import Manifest, Problem
from kpipe.data.reading.folders import listed_files
from kpipe.data.reading.lookup import Lookup, each_once
from kpipe.data.reading.scanning import scan
from kpipe.data.reading.tables import (
    listed_paths,
    read_table,
    refuse_missing_columns,
    table_entries,
)
from kpipe.data.threads import ProgressCallback
from kpipe.errors import DataError

__all__ = ["from_csv", "from_dataframe", "from_folder", "photos_of_csv"]

_Several = str | Path | Sequence[str | Path]


def from_folder(
    root: _Several,
    *,
    max_unreadable: float | None = 0.05,
    cache: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> Manifest:
    """Photos in class folders.

    Args:
        root: holds a folder per class; or folders named train, val or validation, test, each of
            which holds the class folders, and these splits are kept. Photos may lie at any depth
            below their class folder. Of several roots, class folders of one name are one class.
        max_unreadable: largest share of files that may be unreadable, in [0, 1]. None refuses
            nothing, neither these files nor classes that cannot be learned: for an audit.
        cache: an SQLite file in which to remember what each file holds.
        progress: called as `progress(done, total)` while the files are read.

    Returns:
        A manifest in the order of the sorted paths. What is not a readable photo is in
        `.problems`.

    Raises:
        DataError: no such folder, no images, a single class, a class with one image, too many
            unreadable files.
    """
    roots = [Path(os.path.abspath(path)) for path in _each(root)]
    _refuse_missing_folders(roots)
    problems: list[Problem] = []
    listed = [row for path in roots for row in listed_files(path, problems)]
    entries = pd.DataFrame([row for row in listed if row[0]], columns=["path", "label", "split"])
    return scan(
        each_once(entries, problems),
        source=", ".join(map(str, roots)),
        classes={label for _, label, _ in listed},
        problems=problems,
        max_unreadable=max_unreadable,
        cache=cache,
        progress=progress,
    )


def from_csv(
    path: _Several,
    *,
    image: str,
    label: str,
    root: str | Path | None = None,
    classes: Mapping[Any, str] | None = None,
    max_unreadable: float | None = 0.05,
    cache: str | Path | None = None,
    progress: ProgressCallback | None = None,
    **options: Any,
) -> Manifest:
    """Photos listed in a CSV or TSV file.

    Every cell is read as the text that stands there, so a class called "NA" or "007" stays one;
    only an empty cell is missing.

    Args:
        path: of the table, or of several with the same columns. A name that ends in .tsv or .tab is
            read with tabs; semicolons, tabs or bars are taken for what separates the cells where
            the named columns show it.
        image: column of the files.
        label: column of the labels.
        root: folder that relative files are under; without it, the folder of the table.
        classes: see `from_dataframe`.
        max_unreadable: see `from_dataframe`.
        cache: see `from_dataframe`.
        progress: see `from_dataframe`.
        **options: passed on to `pandas.read_csv`, such as `sep`, `names`, `encoding`.

    Raises:
        DataError: no such file, not a table, and as `from_dataframe`.
    """
    paths = [Path(one) for one in _each(path)]
    tables = [(one.parent, read_table(one, options, (image, label))) for one in paths]
    problems: list[Problem] = []
    return scan(
        table_entries(tables, (image, label), root, classes, problems),
        source=", ".join(map(str, paths)),
        classes=classes.values() if classes else (),
        problems=problems,
        max_unreadable=max_unreadable,
        cache=cache,
        progress=progress,
    )


def from_dataframe(
    df: pd.DataFrame,
    *,
    image: str,
    label: str,
    root: str | Path | None = None,
    classes: Mapping[Any, str] | None = None,
    max_unreadable: float | None = 0.05,
    cache: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> Manifest:
    """Photos listed in a table.

    A column named "split" declares splits (train, val or validation, test; empty: none). Other
    columns are carried along as text, but for those whose names the manifest fills itself (path,
    label, width, height, sha256, format, mode, orientation, similar).

    A file that is not there under the name in its cell is looked for with slashes in the place of
    backslashes, in upper and lower case, and as Unicode composes its letters otherwise; photos that
    lie in the folders of listed files, and that no row names, are listed in `.problems`.

    Args:
        df: one row per photo.
        image: column of the files.
        label: column of the labels.
        root: folder that relative files are under; without it, the working directory. All of it is
            looked through for photos without a row.
        classes: {label as it stands in the table: class name}. Rows with another label are left
            out, and listed in `.problems`. Numbers are compared as numbers (0, 0.0 and "0.0" are
            one label). Without it, every label is a class.
        max_unreadable: largest share of files that may be missing or unreadable, in [0, 1]. None
            refuses nothing, neither these files nor classes that cannot be learned: for an audit.
        cache: an SQLite file in which to remember what each file holds.
        progress: called as `progress(done, total)` while the files are read.

    Returns:
        A manifest in the order of the table.

    Raises:
        DataError: no such column, declared labels that no row has, an unknown split, no images, a
            single class, a class with one image, too many unreadable files.
    """
    refuse_missing_columns(df, image, label)
    problems: list[Problem] = []
    return scan(
        table_entries([(Path(), df)], (image, label), root, classes, problems),
        source="the table",
        classes=classes.values() if classes else (),
        problems=problems,
        max_unreadable=max_unreadable,
        cache=cache,
        progress=progress,
    )


def photos_of_csv(
    path: _Several, *, image: str, root: str | Path | None = None, **options: Any
) -> list[Path]:
    """The files that CSV or TSV files list, there or not, unopened.

    Args:
        path: of the table, or of several.
        image: column of the files.
        root: as in `from_csv`.
        **options: as in `from_csv`.

    Returns:
        Absolute paths, each once, in the order of the table.

    Raises:
        DataError: no such file or column, or not a table.
    """
    found: list[str] = []
    for one in map(Path, _each(path)):
        table = read_table(one, options, (image,))
        found += listed_paths(table[image], Lookup(one.parent if root is None else root))
    return [Path(file) for file in dict.fromkeys(found) if file]


def _each(given: _Several) -> list[str | Path]:
    found = [given] if isinstance(given, str | Path) else list(given)
    if not found:
        raise DataError("there is no source", expected="a path, or several")
    return found


def _refuse_missing_folders(roots: Sequence[Path]) -> None:
    absent = [root for root in roots if not root.is_dir()]
    if absent:
        raise DataError(
            f"there is no folder {', '.join(map(str, absent))}",
            expected="a folder with a folder of photos per class",
            received="a file" if absent[0].exists() else "nothing at this path",
        )
