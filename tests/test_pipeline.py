"""A pipeline in Python: run, planned and reported as by the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kpipe import Pipeline
from kpipe.errors import KpipeError
from kpipe.stages import Augment, Data
from tests.walking import draw


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return Pipeline("colors", [Data(str(draw(tmp_path / "photos")), image_size=32)])


def test_it_runs_once_prints_its_events_and_writes_a_report(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events: list[dict[str, Any]] = []
    first = pipeline.run(tmp_path / "out", listeners=[events.append])
    assert (first.made, first.skipped) == (("Data",), ())
    assert "Data runs" in capsys.readouterr().out
    assert [event["event"] for event in events][-1] == "run_finished"
    page = first.folder / "report.html"
    page.unlink()
    again = pipeline.run(str(tmp_path / "out"), quiet=True)
    assert (again.made, again.skipped, again.folder) == ((), ("Data",), first.folder)
    assert capsys.readouterr().out == ""
    assert page.exists()
    assert pipeline.run(tmp_path / "out", fresh=True, quiet=True).made == ("Data",)


def test_its_plan_says_what_a_run_would_do(pipeline: Pipeline, tmp_path: Path) -> None:
    assert [step.status for step in pipeline.plan(tmp_path / "out")] == ["runs"]
    pipeline.run(tmp_path / "out", quiet=True)
    assert [step.status for step in pipeline.plan(tmp_path / "out")] == ["cached"]
    longer = pipeline.with_settings(["Data.image_size=48"])
    assert type(longer) is Pipeline
    assert longer.plan(tmp_path / "out")[0].why.endswith("image_size 32 -> 48")


def test_its_report_needs_a_run(pipeline: Pipeline, tmp_path: Path) -> None:
    with pytest.raises(KpipeError, match="run"):
        pipeline.report(tmp_path / "out")
    pipeline.run(tmp_path / "out", quiet=True)
    assert pipeline.report(tmp_path / "out").read_text().startswith("<!doctype html>")


def test_stages_may_be_added_in_python(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.run(tmp_path / "out", quiet=True)
    more = Pipeline("colors", [*pipeline.stages, Augment()])
    assert [step.status for step in more.plan(tmp_path / "out")] == ["cached", "runs"]
