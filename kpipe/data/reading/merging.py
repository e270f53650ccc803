"""Several manifests made one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from kpipe.data.manifest import Manifest, Problem
from kpipe.data.reading.lookup import each_once
from kpipe.data.reading.scanning import scan
from kpipe.data.reading.tables import further_columns
from kpipe.data.threads import ProgressCallback
from kpipe.errors import DataError

__all__ = ["merge"]


def merge(
    manifests: Sequence[Manifest],
    *,
    max_unreadable: float | None = 0.05,
    cache: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> Manifest:
    """One manifest of several, from folders and tables alike.

    Classes of one name are one class. The photos are looked at again, since those of one manifest
    may look like those of another; with a `cache`, that costs little.

    Args:
        manifests: at least one.
        max_unreadable: see `from_dataframe`.
        cache: see `from_dataframe`.
        progress: see `from_dataframe`.

    Returns:
        A manifest in the order of the given ones, with all their problems.

    Raises:
        DataError: no manifest, and as `from_dataframe`.
    """
    if not manifests:
        raise DataError("there is nothing to merge", expected="at least one manifest")
    tables = [manifest.table.drop(columns=["path", "label"]) for manifest in manifests]
    entries = pd.concat(
        [
            further_columns(table).assign(**manifest.table[["path", "label", "split"]])
            for table, manifest in zip(tables, manifests, strict=True)
        ],
        ignore_index=True,
    ).fillna("")
    told = pd.concat([manifest.problems for manifest in manifests])
    problems: list[Problem] = list(zip(told["path"], told["kind"], told["detail"], strict=True))
    merged = scan(
        each_once(entries, problems),
        source="the merged manifests",
        classes=(),
        problems=problems,
        max_unreadable=max_unreadable,
        cache=cache,
        progress=progress,
    )
    found = merged.problems.drop_duplicates(ignore_index=True)
    # What one source lacked, another may have.
    absent = found["kind"] == "class without images"
    mended = absent & found["detail"].isin([repr(name) for name in merged.classes])
    beside = found["kind"] == "file without a row"
    mended |= beside & found["path"].isin(merged.table["path"])
    return Manifest(merged.table, merged.classes, found[~mended].reset_index(drop=True))
