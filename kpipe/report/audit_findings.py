"""The findings of an audit by kind, most serious first.

Finding := kind, meaning, serious, rows [(path, detail), ...]

A finding that is not serious needs no action: other files among the photos, conversions, and photos
that look the same (which a split keeps together).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

__all__ = ["Finding", "common_folder", "findings", "shorten_paths", "statistics_lines"]

# In display order.
_SERIOUS = {
    "missing file": "The table names a file that does not exist.",
    "unreadable file": "The file cannot be opened.",
    "unreadable directory": "The folder cannot be listed; its content is not part of the data.",
    "empty file": "The file has no content: copy it again from its source.",
    "truncated": "The file is incomplete: copy it again from its source.",
    "damaged photo": "Data of the file are lost or changed, although it can be decoded: copy it "
    "again from its source.",
    "undecodable": "The content is not a photo in a supported format.",
    "too many pixels": "The image claims more pixels than are safe to decode.",
    "wrong extension": "The extension does not match the format of the content. kpipe reads the "
    "file, but other programs may not.",
    "same photo, two labels": "The same or a very similar photo has different labels: decide which "
    "is right.",
    "duplicates cross splits": "Training photos are also used for testing: results look better "
    "than they are.",
    "exact duplicate": "Identical files with the same label: the photo counts more than once.",
    "unusable class name": "labels.txt, which holds a class name on each line, cannot hold it.",
    "label spelling": "Labels that look like different spellings of one word.",
    "several labels": "A label that joins other labels: each photo needs one label.",
    "folder as a class": "The name is that of a folder of photos or labels, not of a class: the "
    "source may be one level too high or too low.",
    "class without images": "The class has no readable photo.",
    "split without a class": "A declared split lacks the class: training stops. Add photos to it, "
    "leave the class out, or let kpipe make the splits.",
    "class too small": "The class has too few photos to train, validate and test on.",
    "constant image": "A single color: a lens cap, or a failed export.",
    "unused range": "Nearly black: a covered lens, or files of 16 bits that hold values of fewer, "
    "such as 12. Scale those to the whole range.",
    "tiny image": "Much smaller than the other photos.",
    "absurd dimensions": "An extreme aspect ratio: the model sees only a small part of the photo.",
    "photo outside a class folder": "The photo has no label: move it into a class folder.",
    "symlink loop": "The link points to a folder above itself; it is not followed.",
    "no file named": "The row names no file.",
    "no label": "The row has no label.",
}
_NOTES = {
    "near duplicate": "Photos that look the same: a split keeps them together.",
    "file without a row": "A photo next to listed ones that no row of the table names.",
    "listed twice": "The same file is listed more than once with the same label.",
    "label not declared": "The label is not among the declared classes.",
    "other spelling in the table": "The table spells the name differently from the file system.",
    "not an image": "Another file among the photos.",
    "outside a class folder": "Another file next to the class folders.",
    "hidden": "The name starts with a dot.",
    "converted": "The photo was converted to 8-bit RGB.",
    "turned upright": "The photo was rotated according to its EXIF orientation.",
    "first frame": "The file has several frames; the first is used.",
}
_PLACES = {kind: place for place, kind in enumerate([*_SERIOUS, *_NOTES])}


@dataclass(frozen=True)
class Finding:
    """All problems of one kind.

    Args:
        kind: the kind of the problems.
        meaning: what it means, in one sentence.
        serious: whether it needs action.
        rows: path and detail of each problem; the path is empty if the problem is about a class.
    """

    kind: str
    meaning: str
    serious: bool
    rows: tuple[tuple[str, str], ...]


def findings(problems: pd.DataFrame) -> list[Finding]:
    """Group problems by kind, most serious first; an unknown kind counts as serious.

    Args:
        problems: a table with the columns path, kind and detail.
    """
    found = [
        Finding(
            str(kind),
            {**_SERIOUS, **_NOTES}.get(str(kind), ""),
            kind not in _NOTES,
            tuple(zip(rows["path"], rows["detail"], strict=True)),
        )
        for kind, rows in problems.groupby("kind")
    ]
    return sorted(found, key=lambda one: (not one.serious, _PLACES.get(one.kind, -1), one.kind))


def common_folder(paths: Iterable[str]) -> str:
    """Return the deepest folder that contains all files, or ""."""
    folders = {os.path.dirname(path) for path in paths}
    return os.path.commonpath(folders) if folders else ""


def shorten_paths(text: str, base: str) -> str:
    """Make the paths in a text relative to a folder."""
    return text.replace(base.rstrip(os.sep) + os.sep, "") if base.strip(os.sep) else text


def statistics_lines(statistics: Mapping[str, Mapping[str, float]]) -> list[tuple[str, str]]:
    """Return (name, text) pairs for the statistics of an `Audit`."""
    lines = [
        (
            f"{name}, minimum / median / maximum",
            " / ".join(f"{values[end]:{form}}" for end in ("minimum", "median", "maximum")),
        )
        for name, form in (("width", ".0f"), ("height", ".0f"), ("aspect", ".2f"))
        if (values := statistics.get(name))
    ]
    lines += [
        (f"{name}, mean ± standard deviation", f"{values['mean']:.1f} ± {values['deviation']:.1f}")
        for name in ("red", "green", "blue")
        if (values := statistics.get(name))
    ]
    lines += [
        (name, ", ".join(f"{word} {count:.0f}" for word, count in values.items()))
        for name in ("format", "mode")
        if (values := statistics.get(name))
    ]
    return lines
