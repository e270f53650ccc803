from __future__ import annotations

import base64
import dataclasses
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kpipe.data import Audit, Manifest
from kpipe.data.manifest import problem_table
from kpipe.report import write_audit

Found = Callable[..., tuple[Manifest, Audit]]


@pytest.fixture
def found(tmp_path: Path) -> Found:
    """`found([(kind, detail, number of a photo), ...], similar=[...])` of twelve photos."""
    rows = []
    for number in range(12):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number} <b>.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (300, 200), (20 * number, 0, 0)).save(path)
        rows.append((str(path), "ab"[number % 2], "", 300, 200, f"{number:064x}"))
    columns = ["path", "label", "split", "width", "height", "sha256"]
    table = pd.DataFrame(rows, columns=columns)

    def make(problems: list[tuple[str, str, int]], **further: list) -> tuple[Manifest, Audit]:
        listed = [(table["path"][place], kind, detail) for kind, detail, place in problems]
        classes = pd.DataFrame(
            {"photos": [6, 6], "share": [0.5, 0.5], "train": 0, "validation": 0, "test": 0},
            index=["a", "b"],
        )
        changes = pd.DataFrame({"path": [], "change": []}, dtype="str")
        audit = Audit(problem_table(listed), classes, {}, 1.0, 12, changes, table)
        return Manifest(table.assign(**further), ("a", "b"), problem_table()), audit

    return make


def write(tmp_path: Path, manifest: Manifest, audit: Audit) -> str:
    table = write_audit(tmp_path / "out" / "page.html", "mine & yours", manifest, audit)
    assert table == tmp_path / "out" / "page.csv"
    return (tmp_path / "out" / "page.html").read_text(encoding="utf-8")


def rows_of(page: str, kind: str) -> list[list[int]]:
    """The numbers of the photos that stand side by side under a kind."""
    (section,) = re.findall(rf">{kind}</span>(.*?)(?=<h2|</body>)", page, re.DOTALL)
    rows = re.split(r'<div class="together">', section)
    return [
        [int(number) for number in re.findall(r"<figcaption>\w/(\d+) ", row)]
        for row in rows
        if "<figcaption>" in row
    ]


def test_photos_of_a_group_are_side_by_side(found: Found, tmp_path: Path) -> None:
    similar = [f"{number:064x}" for number in (0, 1, 0, 3, 4, 4, 6, 7, 6, 6, 10, 11)]
    problems = [("near duplicate", "", 2), ("near duplicate", "", 8), ("near duplicate", "", 9)]
    problems += [("same photo, two labels", "", 4), ("same photo, two labels", "", 5)]
    page = write(tmp_path, *found(problems, similar=similar))
    assert rows_of(page, "near duplicate") == [[0, 2], [6, 8, 9]]
    assert rows_of(page, "same photo, two labels") == [[4, 5]]


def test_duplicates_need_no_column_of_similar_photos(found: Found, tmp_path: Path) -> None:
    sha256 = [f"{number % 10:064x}" for number in range(12)]
    page = write(tmp_path, *found([("exact duplicate", "", 10)], sha256=sha256))
    assert rows_of(page, "exact duplicate") == [[0, 10]]


def test_a_thumbnail_is_the_shrunk_photo(found: Found, tmp_path: Path) -> None:
    page = write(tmp_path, *found([("tiny image", "why", 9)]))
    (data,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.size == (128, 85)
    assert np.abs(np.asarray(image, int) - [180, 0, 0]).max() < 6


def test_a_photo_that_is_no_longer_readable_is_marked(found: Found, tmp_path: Path) -> None:
    manifest, audit = found([("tiny image", "why", 9)])
    Path(manifest.table["path"][9]).unlink()
    page = write(tmp_path, manifest, audit)
    assert "cannot be shown" in page and "data:image" not in page


def test_names_are_text_and_not_markup(found: Found, tmp_path: Path) -> None:
    page = write(tmp_path, *found([("tiny image", "<i>why</i>", 0), ("strange", "<u>", 1)]))
    assert "0 &lt;b&gt;.png" in page and "<b>.png" not in page
    assert "&lt;i&gt;why&lt;/i&gt;" in page and "mine &amp; yours" in page


def test_files_outside_the_manifest_are_listed_as_lines(found: Found, tmp_path: Path) -> None:
    manifest, audit = found([])
    gone = [("/else/where.jpg", "truncated", "cut"), ("", "label spelling", "'a' is 'A'")]
    page = write(tmp_path, manifest, dataclasses.replace(audit, problems=problem_table(gone)))
    assert re.search(r"<td>/else/where.jpg</td><td>cut</td>", page)
    assert re.search(r'<td colspan="2">&#39;a&#39; is &#39;A&#39;</td>', page)


def test_the_page_shows_some_photos_and_the_table_all(found: Found, tmp_path: Path) -> None:
    problems = [("tiny image", str(turn), place) for turn in range(5) for place in range(12)]
    page = write(tmp_path, *found(problems))
    assert page.count("<figure") == 24
    assert "and 36 more, in page.csv" in page
    table = pd.read_csv(tmp_path / "out" / "page.csv")
    assert len(table) == 60 and set(table["kind"]) == {"tiny image"}


def test_large_groups_are_truncated_with_a_note(found: Found, tmp_path: Path) -> None:
    problems = [("near duplicate", "", place) for place in range(1, 12)]
    page = write(tmp_path, *found(problems, similar=["0" * 64] * 12))
    assert rows_of(page, "near duplicate") == [[0, 1, 2, 3, 4, 5]]
    assert "and 6 more like these" in page
