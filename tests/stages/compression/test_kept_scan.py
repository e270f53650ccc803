"""Scans that an interrupted run kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kpipe.prune import Sensitivity
from kpipe.stages.compression.kept_scan import read_scan, write_scan

SCAN = Sensitivity(0.75, {"conv": {0.25: 0.5, 0.5: 0.25}})


def test_a_scan_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "scan" / "sensitivity.json"
    assert read_scan(path, "l1 of it") is None
    write_scan(path, "l1 of it", SCAN)
    assert read_scan(path, "l1 of it") == SCAN


def test_a_scan_of_something_else_is_not_used(tmp_path: Path) -> None:
    write_scan(tmp_path / "sensitivity.json", "l1 of it", SCAN)
    assert read_scan(tmp_path / "sensitivity.json", "l1 of another") is None


@pytest.mark.parametrize(
    "content",
    ["", "null", "[]", "{}", '{"of": "it"}', '{"of": "it", "whole": 1, "scores": []}',
     json.dumps({"of": "it", "whole": "x", "scores": {}}), '{"of": "it", "whole": 1, "scor'],
)  # fmt: skip
def test_a_damaged_scan_is_made_again(content: str, tmp_path: Path) -> None:
    (tmp_path / "sensitivity.json").write_text(content)
    assert read_scan(tmp_path / "sensitivity.json", "it") is None
