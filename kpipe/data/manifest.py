"""The list of photos that everything else works from.

Manifest := table     path, label, split, width, height, sha256 (one row per photo); from a
                      scan also format, mode, orientation, similar; and any further column of
                      the source as text
            classes   the class names, sorted: a label's index is its position here
            problems  path, kind, detail: what was set aside or decided, and why
            statuses  path -> status of the file when its sha256 was computed
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kpipe.errors import DataError, nearest
from kpipe.printable import cell, cell_text, escaped
from kpipe.wrong_kinds import names_wrong_kinds, names_wrong_kinds_of_fields

__all__ = [
    "COLUMNS",
    "INFO_COLUMNS",
    "SPLITS",
    "Manifest",
    "Problem",
    "problem_table",
    "write_table",
]

Problem = tuple[str, str, str]

SPLITS = ("train", "validation", "test")
COLUMNS = ("path", "label", "split", "width", "height", "sha256")
# Further columns of a table that comes from a scan.
INFO_COLUMNS = ("format", "mode", "orientation", "similar")
_NUMBERS = ("width", "height", "orientation")
_PROBLEM_COLUMNS = ("path", "kind", "detail")
_VERSION = 1


@names_wrong_kinds
def problem_table(rows: Iterable[Problem] = ()) -> pd.DataFrame:
    """Return a table of problems.

    Args:
        rows: (path, kind, detail) of each problem.

    Example:
        >>> from kpipe.data import problem_table
        >>> problem_table([("a.jpg", "truncated", "12 bytes are missing")])["kind"].tolist()
        ['truncated']
    """
    return pd.DataFrame(list(rows), columns=list(_PROBLEM_COLUMNS)).astype("str")


@names_wrong_kinds_of_fields
@dataclass(frozen=True, eq=False)
class Manifest:
    """Photos with their labels and splits, and what was set aside.

    Args:
        table: one row per photo. `path` is absolute, `label` a class name, `split` one of "train",
            "validation", "test" or "" (not yet split), `width` and `height` are those of the
            upright photo in pixels, `sha256` that of the file's bytes in hexadecimal. Further
            columns are text, or are saved as text.
        classes: the class names, sorted.
        problems: path, kind, detail of each file or row that was set aside, and of each decision
            about the splits.
        statuses: path -> status of the file for which `sha256` holds (see
            `kpipe.data.file_status`). It spares a second hash in `decode`, and is not saved.

    Raises:
        DataError: if a column is missing, or a label or split is not declared.

    Example:
        >>> from kpipe.data import Manifest, from_folder, split
        >>> manifest = split(from_folder("photos"), (0.5, 0.25, 0.25))
        >>> manifest.classes
        ('blue', 'green', 'red')
        >>> manifest.save("saved")
        >>> Manifest.load("saved").digest == manifest.digest
        True
    """

    table: pd.DataFrame
    classes: tuple[str, ...]
    problems: pd.DataFrame
    statuses: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        missing = [name for name in COLUMNS if name not in self.table]
        if missing:
            raise DataError(
                f"the manifest has no column {', '.join(map(repr, missing))}",
                expected=", ".join(COLUMNS),
                received=", ".join(map(str, self.table.columns)),
                fix="create it with from_folder, from_csv or from_dataframe",
            )
        for column, known in (("label", self.classes), ("split", ("", *SPLITS))):
            unknown = sorted(set(self.table[column]) - set(known))
            if unknown:
                raise DataError(
                    f"the manifest has rows with {column} {', '.join(map(repr, unknown))}",
                    expected=", ".join(map(repr, known)),
                    fix=nearest(unknown[0], known),
                )

    @property
    def digest(self) -> str:
        """The sha256 over each photo's content, label and split.

        It depends neither on the location of the files nor on the order of the rows.
        """
        columns = [self.table[name] for name in ("sha256", "label", "split")]
        content = [list(self.classes), *sorted(map(list, zip(*columns, strict=True)))]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def rows(self, split: str) -> np.ndarray:
        """Return the positions in `table` of the photos of one split.

        Args:
            split: "train", "validation" or "test".

        Returns:
            (photos,) int64, ascending.

        Raises:
            DataError: if the split is unknown or empty.
        """
        if split not in SPLITS:
            raise DataError(f"unknown split {split!r}", fix=nearest(split, SPLITS))
        found = np.flatnonzero(self.table["split"].to_numpy() == split)
        if not found.size:
            raise DataError(
                f"the {split} split is empty",
                received=f"{len(self.table)} photos, splits {sorted(set(self.table['split']))}",
                fix="split the manifest first: kpipe.data.split(manifest)",
            )
        return found

    @names_wrong_kinds
    def labels(self, split: str) -> np.ndarray:
        """Return the class indices of one split, in the order of `rows(split)`.

        Returns:
            (photos,) int32 in [0, len(classes)).
        """
        index = {name: place for place, name in enumerate(self.classes)}
        names = self.table["label"].to_numpy()[self.rows(split)]
        return np.array([index[name] for name in names], np.int32)

    def counts(self) -> pd.DataFrame:
        """Return the number of photos of each class (rows) in each split (columns).

        The column "" counts photos that are not yet split.
        """
        splits = [*SPLITS, *([""] if (self.table["split"] == "").any() else [])]
        counts = self.table.groupby(["label", "split"]).size().unstack(fill_value=0)
        counts = counts.reindex(index=list(self.classes), columns=splits, fill_value=0)
        return counts.rename_axis(index="class", columns="split").astype(int)

    @names_wrong_kinds
    def save(self, folder: str | Path) -> None:
        """Write manifest.csv, problems.csv and manifest.json into a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_table(self.table, folder / "manifest.csv", spreadsheet=True)
        write_table(self.problems, folder / "problems.csv", spreadsheet=True)
        about = {"version": _VERSION, "classes": list(self.classes), "digest": self.digest}
        text = json.dumps(about, ensure_ascii=False, indent=1)
        (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    @names_wrong_kinds
    def load(cls, folder: str | Path) -> Manifest:
        """Load what `save` wrote.

        Raises:
            DataError: if a file is missing or the table was changed.
        """
        folder = Path(folder)
        try:
            about = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            table = _read_table(folder / "manifest.csv")
            problems = _read_table(folder / "problems.csv")
            manifest = cls(table, tuple(about["classes"]), problems)
            unchanged = manifest.digest == about["digest"]
        except (OSError, KeyError, ValueError) as error:
            raise DataError(
                f"no manifest can be read from {folder}",
                expected="manifest.csv, problems.csv and manifest.json, as Manifest.save writes",
                received=f"{type(error).__name__}: {error}",
            ) from error
        if not unchanged:
            raise DataError(
                f"the manifest in {folder} was changed after it was saved",
                expected=f"digest {about['digest']}",
                received=f"digest {manifest.digest}",
                fix="create it again from its source",
            )
        return manifest


def write_table(table: pd.DataFrame, path: Path, *, spreadsheet: bool = False) -> None:
    """Write a CSV file that preserves any text, with invisible characters escaped.

    Args:
        table: the table.
        path: the file.
        spreadsheet: whether people open it: no cell is then taken for a formula.
    """
    written = _each_text(table, cell if spreadsheet else escaped)
    written.to_csv(path, index=False, encoding="utf-8", lineterminator="\n", quoting=csv.QUOTE_ALL)


def _read_table(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path, dtype="str", na_filter=False, encoding="utf-8", lineterminator="\n")
    table = _each_text(table, cell_text)
    return table.astype({name: "int64" for name in _NUMBERS if name in table})


def _each_text(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """Return the table with each text, and each name of a column, changed."""
    once = cache(change)

    def text_changed(value: Any) -> Any:
        return once(value) if isinstance(value, str) else value

    changed = table.rename(columns=text_changed)
    for name in changed.select_dtypes(exclude="number"):
        changed[name] = changed[name].map(text_changed)
    return changed
