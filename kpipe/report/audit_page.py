"""The report of an audit: one self-contained HTML file.

page := classes, statistics; for each kind of finding: meaning, and
        groups of photos, side by side          for duplicates
        photos, each with its detail            for readable photos
        a table of paths and details            for everything else
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from kpipe.data import SPLITS, Audit, Manifest
from kpipe.data.manifest import write_table
from kpipe.data.threads import in_threads
from kpipe.pixels import Unreadable, read_photo
from kpipe.printable import printable, shortened
from kpipe.report.audit_findings import (
    Finding,
    common_folder,
    findings,
    shorten_paths,
    statistics_lines,
)
from kpipe.report.templates import write_page
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["write_audit"]

# The columns that are equal within a group.
_GROUP_COLUMNS = {
    "exact duplicate": ("sha256",),
    "near duplicate": ("similar",),
    "same photo, two labels": ("similar",),
    "duplicates cross splits": ("similar",),
}
_GROUPS, _MEMBERS, _PHOTOS, _LINES, _CHANGES = 12, 6, 24, 24, 100
_SIDE, _QUALITY = 128, 80
# Characters of a path, a class name or a detail.
_NOTE = 400


@dataclass
class _Photo:
    """A photo on the page: its path, caption and pixels."""

    path: str
    name: str
    notes: list[str]
    pixels: str = ""


@dataclass
class _Section:
    """One kind of finding on the page, and how many findings are not shown."""

    finding: Finding
    rows: list[list[_Photo]] = field(default_factory=list)
    lines: list[tuple[str, str]] = field(default_factory=list)
    more: int = 0

    def photos(self) -> list[_Photo]:
        return [photo for row in self.rows for photo in row]


@names_wrong_kinds
def write_audit(page: Path, title: str, manifest: Manifest, audit: Audit) -> Path:
    """Write an HTML page, and a CSV file of all problems next to it.

    Args:
        page: the file to write; missing folders are created.
        title: the title of the page.
        manifest: the audited photos.
        audit: the result of `kpipe.data.audit`.

    Returns:
        The path of the CSV file.

    Example:
        >>> from pathlib import Path
        >>> from kpipe.data import audit, from_folder
        >>> from kpipe.report import write_audit
        >>> manifest = from_folder("photos")
        >>> write_audit(Path("check.html"), "my photos", manifest, audit(manifest)).name
        'check.csv'
    """
    base = common_folder(manifest.table["path"].tolist())
    sections = [_section(one, manifest.table, base) for one in findings(audit.problems)]
    photos = [photo for section in sections for photo in section.photos()]
    paths = list(dict.fromkeys(photo.path for photo in photos))
    pixels = dict(zip(paths, in_threads(_thumbnail, paths), strict=True))
    for photo in photos:
        photo.pixels = pixels[photo.path]
    table = page.with_suffix(".csv")
    page.parent.mkdir(parents=True, exist_ok=True)
    write_table(audit.problems, table, spreadsheet=True)
    write_page(
        page,
        "audit.html",
        title=title,
        base=base,
        table=table.name,
        audit=audit,
        classes=_classes(audit.classes),
        statistics=statistics_lines(audit.statistics),
        sections=sections,
        changes=[
            (shorten_paths(path, base), change)
            for path, change in audit.changes.head(_CHANGES).itertuples(index=False)
        ],
    )
    return table


def _classes(classes: pd.DataFrame) -> list[dict[str, Any]]:
    ordered = classes.sort_values("photos", ascending=False, kind="stable")
    largest = max(1, int(classes["photos"].max())) if len(classes) else 1
    declared = [name for name in SPLITS if classes[name].any()]
    return [
        {
            "name": shortened(row.pop("class"), _NOTE),
            "photos": row["photos"],
            "share": row["share"],
            "bar": 100 * row["photos"] / largest,
            "splits": {split: row[split] for split in declared},
        }
        for row in ordered.rename_axis("class").reset_index().to_dict("records")
    ]


def _section(finding: Finding, table: pd.DataFrame, base: str) -> _Section:
    section = _Section(finding)
    columns = [name for name in _GROUP_COLUMNS.get(finding.kind, ()) if name in table]
    details = dict(finding.rows)
    offenders = table[table["path"].isin(list(details))]
    if columns and len(offenders):
        keys = offenders.groupby(columns, sort=False).ngroup()
        first = offenders[keys < _GROUPS].drop_duplicates(columns)[columns]
        section.rows = [
            _row(members, base) for _, members in first.merge(table).groupby(columns, sort=False)
        ]
        section.more = int(keys.max()) + 1 - len(section.rows)
        return section
    known = set(offenders["path"])
    shown = [path for path, _ in finding.rows if path in known][:_PHOTOS]
    photos = offenders[offenders["path"].isin(shown)].drop_duplicates("path")
    row_of = {str(row["path"]): row for _, row in photos.iterrows()}
    for path, detail in finding.rows:
        if path in known and len(section.rows) < _PHOTOS:
            section.rows.append([_photo(row_of[path], base, shorten_paths(detail, base))])
        elif path not in known and len(section.lines) < _LINES:
            name, note = (printable(shorten_paths(text, base)) for text in (path, detail))
            section.lines.append((shortened(name, _NOTE), shortened(note, _NOTE)))
        else:
            section.more += 1
    return section


def _row(members: pd.DataFrame, base: str) -> list[_Photo]:
    photos = [_photo(row, base) for _, row in members.head(_MEMBERS).iterrows()]
    if len(members) > _MEMBERS:
        photos[-1].notes.append(f"and {len(members) - _MEMBERS} more like these")
    return photos


def _photo(row: pd.Series, base: str, *notes: str) -> _Photo:
    facts = [str(row["label"]), str(row["split"]), f"{row['width']} x {row['height']}"]
    caption = " · ".join(fact for fact in facts if fact)
    name = printable(shorten_paths(row["path"], base))
    return _Photo(row["path"], name, [shortened(note, _NOTE) for note in (caption, *notes)])


def _thumbnail(path: str) -> str:
    """Return a photo as a data URI, or "" if it can no longer be read."""
    try:
        with open(path, "rb") as file:
            _, image = read_photo(file, Path(path).suffix, at_least=_SIDE)
    except (OSError, Unreadable):
        return ""
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
