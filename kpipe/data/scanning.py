"""Every listed photo opened once.

    entries (path, label, split, further columns) -> Manifest

A photo that cannot be read is set aside in `Manifest.problems`, by path and reason; too many of
them, or classes that cannot be learned, are an error.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kpipe.data.decoding import Unreadable, read_photo
from kpipe.data.manifest import COLUMNS, Manifest, problem_table
from kpipe.data.threads import Progress, in_threads
from kpipe.errors import DataError

__all__ = ["Problem", "scan"]

Problem = tuple[str, str, str]

_UNREADABLE = frozenset(
    {
        "empty file",
        "truncated",
        "undecodable",
        "too many pixels",
        "missing file",
        "unreadable file",
    }
)
_SHOWN = 10


@dataclass(frozen=True)
class _Facts:
    """What one file holds: its size and digest, or the problem with it."""

    width: int = 0
    height: int = 0
    sha256: str = ""
    kind: str = ""
    detail: str = ""


def scan(
    entries: pd.DataFrame,
    *,
    source: str,
    classes: Iterable[str],
    problems: Sequence[Problem],
    max_unreadable: float,
    progress: Progress | None,
) -> Manifest:
    """Read the listed files and make a manifest of those that hold photos.

    Args:
        entries: path, label, split of each file, and further columns that are carried as text.
        source: what to call the folder or table in an error.
        classes: names that were declared, with or without files.
        problems: what was set aside before.
        max_unreadable: largest share of unreadable files, in [0, 1].
        progress: called as `progress(done, total)`.

    Raises:
        DataError: too many unreadable files, no photo, a single class, a class with one photo.
    """
    facts = list(in_threads(_facts, entries["path"].tolist(), progress))
    found = list(problems)
    found += [
        (path, fact.kind, fact.detail)
        for path, fact in zip(entries["path"], facts, strict=True)
        if fact.kind
    ]
    kept = [not fact.kind for fact in facts]
    _refuse_unreadable(found, sum(kept), max_unreadable, source)
    measured = ("width", "height", "sha256")
    table = entries.assign(**{name: [getattr(fact, name) for fact in facts] for name in measured})
    table = table[np.array(kept, bool)]
    present = tuple(sorted(set(table["label"])))
    found += [
        ("", "class without images", repr(name)) for name in sorted(set(classes) - set(present))
    ]
    _refuse_classes(Counter(table["label"]), source, found)
    further = [name for name in table if name not in COLUMNS]
    table = table[[*COLUMNS, *further]].reset_index(drop=True)
    text = {name: "str" for name in table if name not in ("width", "height")}
    table = table.astype({**text, "width": "int64", "height": "int64"})
    return Manifest(table, present, problem_table(found))


def _facts(path: str) -> _Facts:
    try:
        if not Path(path).is_file():
            there = Path(path).exists()
            detail = "not a regular file" if there else "there is no such file"
            return _Facts(kind="unreadable file" if there else "missing file", detail=detail)
        with open(path, "rb") as file:
            width, height = read_photo(file, Path(path).suffix).size
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except Unreadable as error:
        return _Facts(kind=error.kind, detail=error.detail)
    except (OSError, ValueError) as error:
        return _Facts(kind="unreadable file", detail=f"{type(error).__name__}: {error}")
    return _Facts(width, height, digest)


def _refuse_unreadable(problems: list[Problem], readable: int, allowed: float, source: str) -> None:
    bad = [problem for problem in problems if problem[1] in _UNREADABLE]
    if not bad or len(bad) <= allowed * (len(bad) + readable):
        return
    shown = [f"{path} ({kind}: {detail})" for path, kind, detail in bad[:_SHOWN]]
    more = [f"and {len(bad) - _SHOWN} more"] if len(bad) > _SHOWN else []
    raise DataError(
        f"{len(bad)} of {len(bad) + readable} photos of {source} cannot be read",
        expected=f"at most {allowed:.0%} of them",
        received="\n    ".join(shown + more),
        fix="mend or remove these files, or raise max_unreadable",
    )


def _refuse_classes(counts: dict[str, int], source: str, problems: list[Problem]) -> None:
    if not counts:
        kinds = pd.Series([kind for _, kind, _ in problems], dtype="str").value_counts()
        received = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
        raise DataError(
            f"no images in {source}",
            expected="JPEG, PNG, BMP, GIF, WebP, TIFF or PPM files",
            received=received or "nothing",
            fix="name the folder that holds the class folders, or that the table's files are under",
        )
    if len(counts) == 1:
        raise DataError(
            f"a single class in {source}",
            expected="at least two",
            received=", ".join(f"{name!r} with {count} images" for name, count in counts.items()),
            fix="give each class a folder of its own, or a label of its own in the table",
        )
    lonely = sorted(name for name, count in counts.items() if count == 1)
    if lonely:
        raise DataError(
            f"one image only in class {', '.join(map(repr, lonely))} of {source}",
            expected="enough images of each class to train, validate and test on",
            fix="add photos of it, or leave the class out",
        )
