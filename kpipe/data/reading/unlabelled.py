"""Photos without labels, beside labelled ones that are split.

photo of the folder                           becomes
same bytes as, or a look-alike of, a          refused: the test split would no longer be unseen
  test photo
the same of a validation photo                left out: validation chooses the best epoch
same bytes as a training photo                left out: its label is known
same bytes as another photo of the folder     left out
unreadable                                    left out
any other                                     a photo of the split "train"
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from kpipe.data.manifest import Manifest, Problem, problem_table
from kpipe.data.reading.folders import listed_photos
from kpipe.data.reading.scanning import ScanOptions, image_infos, scan, similar
from kpipe.errors import DataError
from kpipe.printable import printable

__all__ = ["UNLABELLED", "unlabelled_photos"]

UNLABELLED = "unlabelled"
_SHOWN = 10


def unlabelled_photos(root: str | Path, labelled: Manifest, options: ScanOptions) -> Manifest:
    """Read the photos of a folder that nobody labelled.

    Args:
        root: an existing folder; photos may lie at any depth.
        labelled: the photos with labels, split.
        options: how to read the files; any fraction of them may be unreadable.

    Returns:
        A manifest of the photos to train on, all of one class in the split "train"; `problems`
        lists what was left out.

    Raises:
        DataError: no photo remains, or test photos or their look-alikes are among them.
    """
    problems: list[Problem] = []
    paths = pd.DataFrame({"path": list(listed_photos(Path(root), problems))}, dtype="str")
    entries = paths.assign(label=UNLABELLED, split="train")
    found = scan(
        entries,
        replace(options, max_unreadable=None),
        source=str(root),
        classes=(),
        problems=problems,
    )
    table = found.table
    copies = _copies(table, labelled.table)
    alike = _look_alikes(table, labelled.table, options)
    reasons: dict[int, tuple[str, str]] = {}
    for row, (path, split, how) in {**alike, **copies}.items():
        if split != "train" or how == "the same bytes as":
            reasons[row] = (split, f"{how} {path}")
    tested = [row for row, (split, _) in reasons.items() if split == "test"]
    if tested:
        _refuse_test_photos(root, [(table["path"][n], reasons[n][1]) for n in sorted(tested)])
    left_out = [
        (table["path"][row], f"unlabelled {split} photo", detail)
        for row, (split, detail) in sorted(reasons.items())
    ]
    again = table.duplicated("sha256") & ~table.index.isin(list(reasons))
    left_out += [(path, "exact duplicate", "kept once") for path in table["path"][again]]
    kept = table[~again & ~table.index.isin(list(reasons))].reset_index(drop=True)
    every = pd.concat([found.problems, problem_table(left_out)], ignore_index=True)
    if kept.empty:
        kinds = every["kind"].value_counts()
        raise DataError(
            f"no unlabelled photos in {root}",
            expected="JPEG, PNG, BMP, GIF, WebP, TIFF or PPM files, in folders of any depth, that "
            "are not labelled photos",
            received=", ".join(f"{count} x {kind}" for kind, count in kinds.items()) or "nothing",
        )
    return Manifest(kept, (UNLABELLED,), every, found.statuses)


def _copies(table: pd.DataFrame, labelled: pd.DataFrame) -> dict[int, tuple[str, str, str]]:
    """Return row -> (path, split, how) of the labelled photo with the same bytes."""
    known = {
        digest: (path, split, "the same bytes as")
        for digest, path, split in zip(
            labelled["sha256"], labelled["path"], labelled["split"], strict=True
        )
    }
    digests = table["sha256"].tolist()
    return {row: known[digest] for row, digest in enumerate(digests) if digest in known}


def _look_alikes(
    table: pd.DataFrame, labelled: pd.DataFrame, options: ScanOptions
) -> dict[int, tuple[str, str, str]]:
    """Return row -> (path, split, how) of the held-out photo that looks the same."""
    held_out = labelled[labelled["split"] != "train"]
    rows = pd.concat([held_out, table])[["path", "sha256", "split"]]
    infos = image_infos(rows, replace(options, progress=None))
    readable = np.array([not info.kind for info in infos], bool)
    groups = np.full(len(rows), "", object)
    groups[readable] = similar([info for info in infos if not info.kind], options.cache)
    # Test photos come last, so that a group with photos of both splits counts as test.
    order = np.argsort(held_out["split"].to_numpy() == "test", kind="stable")
    known = {
        groups[n]: (held_out["path"].iloc[n], held_out["split"].iloc[n], "looks like")
        for n in order
        if groups[n]
    }
    of_table = groups[len(held_out) :].tolist()
    return {row: known[group] for row, group in enumerate(of_table) if group in known}


def _refuse_test_photos(root: str | Path, found: list[tuple[str, str]]) -> None:
    shown = [printable(f"{path} ({detail})") for path, detail in found[:_SHOWN]]
    more = [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    raise DataError(
        f"{len(found)} unlabelled photos of {root} are test photos, or look like one",
        expected="photos that no model is tested on",
        received="\n    ".join(shown + more),
        fix="move them out of the folder",
    )
