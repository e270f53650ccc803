from __future__ import annotations

from kpipe.data.manifest import problem_table
from kpipe.report.audit_findings import common_folder, findings, shorten_paths, statistics_lines


def test_serious_findings_come_first_and_no_row_is_lost() -> None:
    rows = [("/p/1", "hidden", "a"), ("/p/2", "truncated", "b"), ("", "class too small", "c")]
    found = findings(problem_table([*rows, ("/p/3", "truncated", "d")]))
    assert [one.kind for one in found] == ["truncated", "class too small", "hidden"]
    assert [one.serious for one in found] == [True, True, False]
    assert found[0].rows == (("/p/2", "b"), ("/p/3", "d"))
    assert all(one.meaning for one in found)


def test_an_unknown_kind_is_serious() -> None:
    (found,) = findings(problem_table([("/p/1", "new kind", "a")]))
    assert found.serious and not found.meaning


def test_no_problems_give_no_findings() -> None:
    assert findings(problem_table()) == []


def test_paths_are_shown_relative_to_the_common_folder() -> None:
    paths = ["/p/photos/a/1.png", "/p/photos/b/2.png"]
    base = common_folder(paths)
    assert base == "/p/photos"
    assert shorten_paths("a copy of /p/photos/b/2.png", base) == "a copy of b/2.png"
    assert shorten_paths("/p/photos 2/b.png", base) == "/p/photos 2/b.png"
    assert common_folder([]) == "" and shorten_paths("/p/1.png", "") == "/p/1.png"
    assert shorten_paths("/p/1.png", common_folder(["/p/1.png", "/q/1.png"])) == "/p/1.png"


def test_statistics_are_lines() -> None:
    lines = statistics_lines(
        {
            "width": {"minimum": 10.0, "median": 20.5, "maximum": 3000.0},
            "red": {"mean": 1.25, "deviation": 2.0},
            "format": {"JPEG": 7, "PNG": 2},
        }
    )
    assert lines == [
        ("width, minimum / median / maximum", "10 / 20 / 3000"),
        ("red, mean ± standard deviation", "1.2 ± 2.0"),
        ("format", "JPEG 7, PNG 2"),
    ]
    assert statistics_lines({}) == []
