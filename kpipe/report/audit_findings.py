"""What an audit found, by kind, the worst first.

Finding := kind, meaning, serious, rows [(path, detail), ...]

What is not serious is told and needs no hand: files that are no photos, conversions, photos that
look the same (which a split keeps together).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

__all__ = ["Finding", "common_folder", "findings", "shown", "statistics_lines"]

# In the order in which they are shown.
_SERIOUS = {
    "missing file": "The table names a file that is not there.",
    "unreadable file": "The file cannot be opened.",
    "unreadable directory": "The folder cannot be listed: what lies in it is not part of the data.",
    "empty file": "The file has no content: copy it again from where it came.",
    "truncated": "The file ends before the photo does: copy it again from where it came.",
    "undecodable": "The content is no photo of a known format.",
    "too many pixels": "The file claims more pixels than are safe to decode.",
    "wrong extension": "The name promises another format than the file holds. It is read all the "
    "same, but other programs go by the name.",
    "same photo, two labels": "The same picture, or one that looks the same, stands under "
    "different labels: see which is right.",
    "duplicates cross splits": "What is learned from is also tested on: results would look better "
    "than they are.",
    "exact duplicate": "The same bytes more than once under one label: the photo counts double.",
    "label spelling": "Labels that look like one word in several spellings.",
    "class without images": "A class that has no readable photo.",
    "class too small": "Too few photos to train, validate and test on.",
    "constant image": "One color all over: a lens cap, or an export that went wrong.",
    "tiny image": "Much smaller than the others.",
    "absurd dimensions": "Much longer than wide, or wider than long: little of it is seen.",
    "photo outside a class folder": "The photo has no label: it belongs into a class folder.",
    "symlink loop": "The link leads back above itself; it is not followed.",
    "no file named": "The row names no file.",
    "no label": "The row has no label.",
}
_NOTES = {
    "near duplicate": "Photos that look the same: a split keeps them together.",
    "file without a row": "A photo beside the listed ones that no row of the table names.",
    "listed twice": "The same file with the same label, more than once.",
    "label not declared": "The row has a label that the declaration leaves out.",
    "other spelling in the table": "The table spells a name otherwise than the disk does.",
    "not an image": "Another file among the photos.",
    "outside a class folder": "Another file beside the class folders.",
    "hidden": "The name begins with a dot.",
    "converted": "Read, and converted to RGB in eight bits.",
    "turned upright": "Stored on its side, and turned as its EXIF data says.",
    "first frame": "Of several frames, the first is read.",
}
_PLACES = {kind: place for place, kind in enumerate([*_SERIOUS, *_NOTES])}


@dataclass(frozen=True)
class Finding:
    """Everything of one kind.

    Args:
        kind: of the problem.
        meaning: one sentence on what it means.
        serious: whether somebody should look at it.
        rows: path and detail of each; the path is empty where a class is meant.
    """

    kind: str
    meaning: str
    serious: bool
    rows: tuple[tuple[str, str], ...]


def findings(problems: pd.DataFrame) -> list[Finding]:
    """Problems by kind, the worst first; a kind that is not known here counts as serious.

    Args:
        problems: path, kind, detail.
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
    """The folder that all files lie below, "" where there is none."""
    folders = {os.path.dirname(path) for path in paths}
    return os.path.commonpath(folders) if folders else ""


def shown(text: str, base: str) -> str:
    """A path, or words with paths in them, as seen from a folder."""
    return text.replace(base.rstrip(os.sep) + os.sep, "") if base.strip(os.sep) else text


def statistics_lines(statistics: Mapping[str, Mapping[str, float]]) -> list[tuple[str, str]]:
    """(name, text) of each thing that is known of the photos as a whole.

    Args:
        statistics: of an Audit.
    """
    lines = [
        (
            f"{name}, least / median / most",
            " / ".join(f"{values[end]:{form}}" for end in ("minimum", "median", "maximum")),
        )
        for name, form in (("width", ".0f"), ("height", ".0f"), ("aspect", ".2f"))
        if (values := statistics.get(name))
    ]
    lines += [
        (f"{name}, mean ± deviation", f"{values['mean']:.1f} ± {values['deviation']:.1f}")
        for name in ("red", "green", "blue")
        if (values := statistics.get(name))
    ]
    lines += [
        (name, ", ".join(f"{word} {count:.0f}" for word, count in values.items()))
        for name in ("format", "mode")
        if (values := statistics.get(name))
    ]
    return lines
