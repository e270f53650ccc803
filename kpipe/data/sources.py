"""Where photos and labels come from.

from_folder       root/class/photo, or root/train|validation|test/class/photo
from_csv          a table on disk with a column of files and a column of labels
from_dataframe    the same table in memory
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from kpipe.data.folders import listed_files
from kpipe.data.manifest import Manifest
from kpipe.data.scanning import Problem, scan
from kpipe.data.tables import (
    class_names,
    declared_splits,
    further_columns,
    listed_paths,
    missing_cells,
    read_table,
    refuse_missing_columns,
)
from kpipe.data.threads import Progress
from kpipe.errors import DataError

__all__ = ["from_csv", "from_dataframe", "from_folder", "photos_of_csv"]


def from_folder(
    root: str | Path,
    *,
    max_unreadable: float = 0.05,
    progress: Progress | None = None,
) -> Manifest:
    """Photos in class folders.

    Args:
        root: holds a folder per class; or folders named train, val or validation, test, each of
            which holds the class folders, and these splits are kept. Photos may lie at any depth
            below their class folder.
        max_unreadable: largest share of files that may be unreadable, in [0, 1].
        progress: called as `progress(done, total)` while the files are read.

    Returns:
        A manifest in the order of the sorted paths. What is not a readable photo is in
        `.problems`.

    Raises:
        DataError: no such folder, no images, a single class, a class with one image, too many
            unreadable files.
    """
    root = Path(os.path.abspath(root))
    if not os.path.isdir(root):
        raise DataError(
            f"there is no folder {root}",
            expected="a folder with a folder of photos per class",
            received="a file" if os.path.exists(root) else "nothing at this path",
        )
    problems: list[Problem] = []
    listed = list(listed_files(root, problems))
    columns = ["path", "label", "split"]
    entries = pd.DataFrame([row for row in listed if row[0]], columns=columns)
    return scan(
        entries,
        source=str(root),
        classes={label for _, label, _ in listed},
        problems=problems,
        max_unreadable=max_unreadable,
        progress=progress,
    )


def from_csv(
    path: str | Path,
    *,
    image: str,
    label: str,
    root: str | Path | None = None,
    classes: Mapping[Any, str] | None = None,
    max_unreadable: float = 0.05,
    progress: Progress | None = None,
    **options: Any,
) -> Manifest:
    """Photos listed in a CSV or TSV file.

    Every cell is read as the text that stands there, so a class called "NA" or "007" stays one;
    only an empty cell is missing.

    Args:
        path: of the table; a name that ends in .tsv or .tab is read with tabs.
        image: column of the files.
        label: column of the labels.
        root: folder that relative files are under; without it, the folder of the table.
        classes: see `from_dataframe`.
        max_unreadable: see `from_dataframe`.
        progress: see `from_dataframe`.
        **options: passed on to `pandas.read_csv`, such as `sep`, `names`, `encoding`.

    Raises:
        DataError: no such file, not a table, and as `from_dataframe`.
    """
    path = Path(path)
    table = read_table(path, options)
    return from_dataframe(
        table,
        image=image,
        label=label,
        root=path.parent if root is None else root,
        classes=classes,
        max_unreadable=max_unreadable,
        progress=progress,
    )


def from_dataframe(
    df: pd.DataFrame,
    *,
    image: str,
    label: str,
    root: str | Path | None = None,
    classes: Mapping[Any, str] | None = None,
    max_unreadable: float = 0.05,
    progress: Progress | None = None,
) -> Manifest:
    """Photos listed in a table.

    A column named "split" declares splits (train, val or validation, test; empty: none). Other
    columns are carried along as text, but for those whose names the manifest fills itself (path,
    label, width, height, sha256).

    Args:
        df: one row per photo.
        image: column of the files.
        label: column of the labels.
        root: folder that relative files are under; without it, the working directory.
        classes: {label as it stands in the table: class name}. Rows with another label are left
            out, and listed in `.problems`. Numbers are compared as numbers (0, 0.0 and "0.0" are
            one label). Without it, every label is a class.
        max_unreadable: largest share of files that may be missing or unreadable, in [0, 1].
        progress: called as `progress(done, total)` while the files are read.

    Returns:
        A manifest in the order of the table.

    Raises:
        DataError: no such column, declared labels that no row has, an unknown split, no images, a
            single class, a class with one image, too many unreadable files.
    """
    refuse_missing_columns(df, image, label)
    missing = missing_cells(df[image])
    files = listed_paths(df[image], root)
    problems: list[Problem] = []
    entries = further_columns(df.drop(columns=[image, label])).assign(
        path=pd.Series(files, df.index, dtype="str"),
        label=class_names(df[label], files, classes, problems),
        split=declared_splits(df),
    )
    problems += [
        ("", "no file named", f"label {name!r}")
        for name, gone in zip(entries["label"], missing, strict=True)
        if gone
    ]
    entries = entries[(entries["path"] != "") & (entries["label"] != "")]
    twice = entries.duplicated(["path", "label"])
    problems += [(path, "listed twice", "kept once") for path in entries["path"][twice]]
    return scan(
        entries[~twice],
        source="the table",
        classes=classes.values() if classes else (),
        problems=problems,
        max_unreadable=max_unreadable,
        progress=progress,
    )


def photos_of_csv(
    path: str | Path, *, image: str, root: str | Path | None = None, **options: Any
) -> list[Path]:
    """The files that a CSV or TSV file lists, there or not, unopened.

    Args:
        path: of the table.
        image: column of the files.
        root: as in `from_csv`.
        **options: as in `from_csv`.

    Returns:
        Absolute paths, each once, in the order of the table.

    Raises:
        DataError: no such file or column, or not a table.
    """
    path = Path(path)
    table = read_table(path, options)
    refuse_missing_columns(table, image)
    files = listed_paths(table[image], path.parent if root is None else root)
    return [Path(file) for file in dict.fromkeys(files) if file]
