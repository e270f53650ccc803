"""Sources of photos and labels.

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

from kpipe.class_names import refuse_class_names
from kpipe.data.manifest import Manifest, Problem
from kpipe.data.reading.folders import listed_files
from kpipe.data.reading.lookup import Lookup, each_once
from kpipe.data.reading.scanning import KnownDigests, ScanOptions, scan
from kpipe.data.reading.tables import (
    listed_paths,
    read_table,
    refuse_missing_columns,
    table_entries,
)
from kpipe.data.threads import ProgressCallback
from kpipe.errors import DataError
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["from_csv", "from_dataframe", "from_folder", "list_csv_files"]

_Paths = str | Path | Sequence[str | Path]


@names_wrong_kinds
def from_folder(
    root: _Paths,
    *,
    max_unreadable: float | None = 0.05,
    cache: str | Path | None = None,
    progress: ProgressCallback | None = None,
    known_digests: KnownDigests | None = None,
) -> Manifest:
    """Read the photos in class folders into a manifest.

    Args:
        root: holds a folder per class; or folders named train, val or validation, test, which hold
            the class folders and declare the splits. Photos may lie at any depth below their class
            folder. With several roots, class folders of the same name are one class.
        max_unreadable: largest fraction of files that may be unreadable, in [0, 1]. None accepts
            any, and classes that cannot be learned too: for an audit.
        cache: an SQLite file in which to cache what each file holds.
        progress: called as `progress(done, total)` while files are read.
        known_digests: called with a list of paths, returns path -> sha256 of those that were hashed
            before and have not changed since; they are not hashed again.

    Returns:
        A manifest in the order of the sorted paths; files that are not readable photos are in its
        `problems`.

    Raises:
        DataError: if the folder does not exist, holds no images or a single class, a class has one
            image, or too many files are unreadable.

    Example:
        >>> from kpipe.data import from_folder
        >>> manifest = from_folder("photos")
        >>> manifest.classes, len(manifest.table)
        (('blue', 'green', 'red'), 60)
    """
    roots = [Path(os.path.abspath(path)) for path in _as_list(root)]
    _refuse_missing_folders(roots)
    problems: list[Problem] = []
    listed = [row for path in roots for row in listed_files(path, problems)]
    entries = pd.DataFrame([row for row in listed if row[0]], columns=["path", "label", "split"])
    return scan(
        each_once(entries, problems),
        ScanOptions(max_unreadable, cache, progress, known_digests),
        source=", ".join(map(str, roots)),
        classes={label for _, label, _ in listed},
        problems=problems,
    )


@names_wrong_kinds
def from_csv(
    path: _Paths,
    *,
    image: str,
    label: str,
    root: str | Path | None = None,
    classes: Mapping[Any, str] | None = None,
    max_unreadable: float | None = 0.05,
    cache: str | Path | None = None,
    progress: ProgressCallback | None = None,
    known_digests: KnownDigests | None = None,
    **options: Any,
) -> Manifest:
    r"""List the photos of a CSV or TSV file.

    Cells are read as text, so classes called "NA" or "007" keep their names; only an empty cell is
    missing. An apostrophe that `Manifest.save` put before a name such as "=red" is removed.

    Args:
        path: path of the table, or of several with the same columns. The separator is a tab if the
            name ends in .tsv or .tab, else a comma; or a semicolon, tab or bar if that separates
            the named columns.
        image: column of the files.
        label: column of the labels.
        root: folder of relative paths; by default, the folder of the table.
        classes: see `from_dataframe`.
        max_unreadable: see `from_folder`.
        cache: see `from_folder`.
        progress: see `from_folder`.
        known_digests: see `from_folder`.
        **options: passed to `pandas.read_csv`, such as `sep`, `names`, `encoding`.

    Raises:
        DataError: if the file does not exist or is not a table, and as `from_dataframe`.

    Example:
        >>> from pathlib import Path
        >>> from kpipe.data import from_csv
        >>> photos = sorted(Path("photos").rglob("*.png"))
        >>> rows = [f"{path},{path.parent.name}" for path in photos]
        >>> _ = Path("photos.csv").write_text("\n".join(["file,color", *rows]))
        >>> from_csv("photos.csv", image="file", label="color").classes
        ('blue', 'green', 'red')
    """
    paths = [Path(one) for one in _as_list(path)]
    tables = [(one.parent, read_table(one, options, (image, label))) for one in paths]
    problems: list[Problem] = []
    return scan(
        table_entries(tables, (image, label), root, classes, problems),
        ScanOptions(max_unreadable, cache, progress, known_digests),
        source=", ".join(map(str, paths)),
        classes=classes.values() if classes else (),
        problems=problems,
    )


@names_wrong_kinds
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
    """List the photos of a table.

    A column named "split" declares splits (train, val or validation, test; empty: none). Other
    columns are kept as text, except those that the manifest fills itself (path, label, width,
    height, sha256, format, mode, orientation, similar).

    A file that does not exist under the name in its cell is searched for with slashes in place of
    backslashes, ignoring case, and in other Unicode compositions. Photos in the folders of listed
    files that no row names are listed in `problems`.

    Args:
        df: one row per photo.
        image: column of the files.
        label: column of the labels.
        root: folder of relative paths; by default, the working directory. All of it is searched
            for photos without a row.
        classes: {label in the table: class name}. Rows with another label are left out and listed
            in `problems`. Numbers are compared by value (0, 0.0 and "0.0" are one label). By
            default, every label is a class.
        max_unreadable: see `from_folder`; missing files count as unreadable.
        cache: see `from_folder`.
        progress: see `from_folder`.

    Returns:
        A manifest in the order of the table.

    Raises:
        DataError: if a column is missing, no row has a declared label, a split is unknown, there
            are no images or a single class, a class has one image, or too many files are
            unreadable.

    Example:
        >>> from pathlib import Path
        >>> import pandas as pd
        >>> from kpipe.data import from_dataframe
        >>> photos = sorted(Path("photos").rglob("*.png"))
        >>> df = pd.DataFrame({"file": photos, "code": [path.parent.name[0] for path in photos]})
        >>> classes = {"b": "blue", "g": "green"}
        >>> manifest = from_dataframe(df, image="file", label="code", classes=classes)
        >>> len(manifest.table), len(manifest.problems)
        (44, 16)
    """
    if not isinstance(df, pd.DataFrame):
        raise DataError(
            "df is not a pandas DataFrame",
            expected="a DataFrame with a row for each photo",
            received=f"a {type(df).__name__}",
            fix="pass pandas.DataFrame(...) of it; for a file, use from_csv",
        )
    refuse_missing_columns(df, image, label)
    problems: list[Problem] = []
    return scan(
        table_entries([(Path(), df)], (image, label), root, classes, problems),
        ScanOptions(max_unreadable, cache, progress),
        source="the table",
        classes=classes.values() if classes else (),
        problems=problems,
    )


@names_wrong_kinds
def list_csv_files(
    path: _Paths,
    *,
    image: str,
    root: str | Path | None = None,
    label: str = "",
    further_columns: Sequence[str] = (),
    **options: Any,
) -> list[Path]:
    r"""Return the files that CSV or TSV files list, without opening them; some may not exist.

    Args:
        path: path of the table, or of several.
        image: column of the files.
        root: see `from_csv`.
        label: column of the labels, if each of them is a class: their names are then checked.
        further_columns: columns that must exist too.
        **options: see `from_csv`.

    Returns:
        Absolute paths without repeats, in the order of the table.

    Raises:
        DataError: if the file or a column does not exist, the file is not a table, or a label
            cannot be the name of a class.

    Example:
        >>> from pathlib import Path
        >>> from kpipe.data import list_csv_files
        >>> _ = Path("photos.csv").write_text("file,label\na.jpg,cat\nb.jpg,dog")
        >>> [path.name for path in list_csv_files("photos.csv", image="file")]
        ['a.jpg', 'b.jpg']
    """
    found: list[str] = []
    columns = dict.fromkeys((image, *filter(None, (label, *further_columns))))
    for one in map(Path, _as_list(path)):
        table = read_table(one, options, list(columns))
        if label:
            labels = table[label].astype("str").unique()
            refuse_class_names((name for name in labels if name.strip()), str(one), DataError)
        found += listed_paths(table[image], Lookup(one.parent if root is None else root))
    return [Path(file) for file in dict.fromkeys(found) if file]


def _as_list(paths: _Paths) -> list[str | Path]:
    found = [paths] if isinstance(paths, str | Path) else list(paths)
    if not found:
        raise DataError("no source is given", expected="one path or more")
    return found


def _refuse_missing_folders(roots: Sequence[Path]) -> None:
    absent = [root for root in roots if not os.path.isdir(root)]
    if absent:
        raise DataError(
            f"there is no folder {', '.join(map(str, absent))}",
            expected="a folder with a folder of photos per class",
            received="a file" if os.path.exists(absent[0]) else "nothing at this path",
        )
