"""A run whose result is refused: the error, the report, and another limit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from kpipe.cli.entry import commands, main
from kpipe.errors import TrainingError

PIPELINE = """
from kpipe import Pipeline
from tests.core.toys import Read, Weigh

pipeline = Pipeline("toy", [Read("source.txt"), Weigh(3)])
"""


@pytest.fixture(autouse=True)
def declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline of a run that is refused, in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("source.txt").write_text("abcd")
    Path("toy.py").write_text(PIPELINE)


def test_a_refused_run_has_a_report_and_another_limit_runs_nothing() -> None:
    kpipe = CliRunner()
    refused = kpipe.invoke(commands, ["run", "toy.py"])
    assert isinstance(refused.exception, TrainingError)
    (page,) = Path("saved_models/toy").glob("*/report.html")
    assert f"report:  {page}" in refused.output
    assert "Weigh is refused:" in page.read_text()
    assert f"see the files in {page.parent / 'refused'}" in str(refused.exception)

    assert "refused" in kpipe.invoke(commands, ["plan", "toy.py"]).output
    accepted = kpipe.invoke(commands, ["run", "toy.py", "--set", "Weigh.limit=4"])
    assert accepted.exit_code == 0 and "nothing to do" in accepted.output
    assert "4 letters are just enough" in accepted.output


def test_a_refusal_says_how_to_judge_again_and_not_how_to_resume(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["kpipe", "run", "toy.py", "--fresh"])
    with pytest.raises(SystemExit):
        main()
    error = capsys.readouterr().err
    assert error.rstrip().endswith("\n  then, with what you change: kpipe run toy.py")
    assert "to resume" not in error and "what to do" in error


def test_a_report_that_fails_does_not_hide_the_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> Path:
        raise OSError("no space for the page")

    monkeypatch.setattr("kpipe.report.write_report", fail)
    with pytest.warns(UserWarning, match="report could not be written: no space for the page"):
        refused = CliRunner().invoke(commands, ["run", "toy.py"])
    assert isinstance(refused.exception, TrainingError)
    assert "4 letters are too many" in str(refused.exception)
    assert "report:" not in refused.output
