"""Merge several manifests into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from kpipe.data.manifest import Manifest, Problem
from kpipe.data.reading.lookup import each_once
from kpipe.data.reading.scanning import ScanOptions, scan
from kpipe.data.reading.tables import further_columns
from kpipe.data.threads import ProgressCallback
from kpipe.errors import DataError
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["merge"]


@names_wrong_kinds
def merge(
    manifests: Sequence[Manifest],
    *,
    max_unreadable: float | None = 0.05,
    cache: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> Manifest:
    """Merge manifests, from folders and tables alike.

    Classes of the same name become one. The photos are scanned again, since those of one manifest
    may look like those of another; with a `cache`, that is fast.

    Args:
        manifests: at least one.
        max_unreadable: see `from_folder`.
        cache: see `from_folder`.
        progress: see `from_folder`.

    Returns:
        A manifest in the order of the given ones, with all their problems.

    Raises:
        DataError: if there is no manifest, and as `from_folder`.

    Example:
        >>> import shutil
        >>> from kpipe.data import from_folder, merge
        >>> for name in ("orange", "red"):
        ...     _ = shutil.copytree("photos/red", f"more/{name}")
        >>> merge([from_folder("photos"), from_folder("more")]).classes
        ('blue', 'green', 'orange', 'red')
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
    earlier = pd.concat([manifest.problems for manifest in manifests])
    problems: list[Problem] = list(
        zip(earlier["path"], earlier["kind"], earlier["detail"], strict=True)
    )
    merged = scan(
        each_once(entries, problems),
        ScanOptions(max_unreadable, cache, progress),
        source="the merged manifests",
        classes=(),
        problems=problems,
    )
    found = merged.problems.drop_duplicates(ignore_index=True)
    # What one source lacks, another may have.
    absent = found["kind"] == "class without images"
    solved = absent & found["detail"].isin([repr(name) for name in merged.classes])
    unlisted = found["kind"] == "file without a row"
    solved |= unlisted & found["path"].isin(merged.table["path"])
    return replace(merged, problems=found[~solved].reset_index(drop=True))
