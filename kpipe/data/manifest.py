"""The list of photos that everything else works from.

Manifest := table     path, label, split, width, height, sha256 (one row per photo); where they were
                      looked for: format, mode, orientation, similar; and any further column of
                      the source as text
            classes   the class names, sorted: a label's index is its place here
            problems  path, kind, detail: what was set aside, or decided, and why
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kpipe.errors import DataError, nearest

__all__ = [
    "COLUMNS",
    "FURTHER_FACTS",
    "SPLITS",
    "Manifest",
    "Problem",
    "problem_table",
    "write_table",
]

Problem = tuple[str, str, str]

SPLITS = ("train", "validation", "test")
COLUMNS = ("path", "label", "split", "width", "height", "sha256")
# What reading a photo tells besides: known where the scan made the table.
FURTHER_FACTS = ("format", "mode", "orientation", "similar")
_NUMBERS = ("width", "height", "orientation")
_PROBLEM_COLUMNS = ("path", "kind", "detail")
_VERSION = 1


def problem_table(rows: Iterable[Problem] = ()) -> pd.DataFrame:
    """A table of problems.

    Args:
        rows: (path, kind, detail) of each.
    """
    return pd.DataFrame(list(rows), columns=list(_PROBLEM_COLUMNS)).astype("str")


@dataclass(frozen=True, eq=False)
class Manifest:
    """Photos with their labels and splits, and what was set aside.

    Args:
        table: one row per photo. `path` absolute, `label` a class name, `split` one of "train",
            "validation", "test" or "" (not yet split), `width` and `height` in pixels with the
            photo upright, `sha256` of the file's bytes in hexadecimal. Further columns are text.
        classes: the class names, sorted.
        problems: path, kind, detail of each file or row that was set aside, and of each decision
            taken about the splits.

    Raises:
        DataError: a missing column, or a label or split that is not declared.
    """

    table: pd.DataFrame
    classes: tuple[str, ...]
    problems: pd.DataFrame

    def __post_init__(self) -> None:
        missing = [name for name in COLUMNS if name not in self.table]
        if missing:
            raise DataError(
                f"the manifest has no column {', '.join(map(repr, missing))}",
                expected=", ".join(COLUMNS),
                received=", ".join(map(str, self.table.columns)),
                fix="make it with from_folder, from_csv or from_dataframe",
            )
        for column, known in (("label", self.classes), ("split", ("", *SPLITS))):
            strange = sorted(set(self.table[column]) - set(known))
            if strange:
                raise DataError(
                    f"the manifest has rows with {column} {', '.join(map(repr, strange))}",
                    expected=", ".join(map(repr, known)),
                    fix=nearest(strange[0], known),
                )

    @property
    def digest(self) -> str:
        """sha256 over each photo's content, label and split.

        A function neither of where the files lie nor of the order of the rows.
        """
        columns = [self.table[name] for name in ("sha256", "label", "split")]
        content = [list(self.classes), *sorted(map(list, zip(*columns, strict=True)))]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def rows(self, split: str) -> np.ndarray:
        """Positions in `table` of the photos of one split.

        Args:
            split: "train", "validation" or "test".

        Returns:
            (photos,) int64, ascending.

        Raises:
            DataError: no such split, or no photo in it.
        """
        if split not in SPLITS:
            raise DataError(f"no split is called {split!r}", fix=nearest(split, SPLITS))
        found = np.flatnonzero(self.table["split"].to_numpy() == split)
        if not found.size:
            raise DataError(
                f"the {split} split is empty",
                received=f"{len(self.table)} photos, splits {sorted(set(self.table['split']))}",
                fix="split the manifest first: kpipe.data.split(manifest)",
            )
        return found

    def labels(self, split: str) -> np.ndarray:
        """Class indices of one split, in the order of `rows(split)`.

        Returns:
            (photos,) int32 in [0, len(classes)).
        """
        index = {name: place for place, name in enumerate(self.classes)}
        names = self.table["label"].to_numpy()[self.rows(split)]
        return np.array([index[name] for name in names], np.int32)

    def counts(self) -> pd.DataFrame:
        """Number of photos of each class (rows) in each split (columns; "" is not yet split)."""
        splits = [*SPLITS, *([""] if (self.table["split"] == "").any() else [])]
        counted = self.table.groupby(["label", "split"]).size().unstack(fill_value=0)
        counted = counted.reindex(index=list(self.classes), columns=splits, fill_value=0)
        return counted.rename_axis(index="class", columns="split").astype(int)

    def save(self, folder: str | Path) -> None:
        """Write manifest.csv, problems.csv and manifest.json into a folder (made if need be)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_table(self.table, folder / "manifest.csv")
        write_table(self.problems, folder / "problems.csv")
        facts = {"version": _VERSION, "classes": list(self.classes), "digest": self.digest}
        text = json.dumps(facts, ensure_ascii=False, indent=1)
        (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Manifest:
        """Read back what `save` wrote.

        Raises:
            DataError: a file is missing, or the table is not the one that was saved.
        """
        folder = Path(folder)
        try:
            facts = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            table = _read_table(folder / "manifest.csv")
            problems = _read_table(folder / "problems.csv")
            manifest = cls(table, tuple(facts["classes"]), problems)
            whole = manifest.digest == facts["digest"]
        except (OSError, KeyError, ValueError) as error:
            raise DataError(
                f"no manifest can be read from {folder}",
                expected="manifest.csv, problems.csv and manifest.json, as Manifest.save writes",
                received=f"{type(error).__name__}: {error}",
            ) from error
        if not whole:
            raise DataError(
                f"the manifest in {folder} was changed after it was saved",
                expected=f"digest {facts['digest']}",
                received=f"digest {manifest.digest}",
                fix="make it again from its source",
            )
        return manifest


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a CSV file in which any text survives."""
    # A bare carriage return in a name survives only inside quotes.
    table.to_csv(path, index=False, encoding="utf-8", lineterminator="\n", quoting=csv.QUOTE_ALL)


def _read_table(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path, dtype="str", na_filter=False, encoding="utf-8", lineterminator="\n")
    return table.astype({name: "int64" for name in _NUMBERS if name in table})
