"""A stage that judges its finished result: accepted, accepted with a note, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from kpipe.core.journal import read_journal
from kpipe.core.pipeline import Pipeline
from kpipe.core.runner import plan, run, run_folder
from kpipe.errors import TrainingError
from tests.core.toys import Read, Weigh


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.txt"
    path.write_text("abcd")
    return path


def weighing(source: Path, limit: int, **fields: str) -> Pipeline:
    return Pipeline("toy", [Read(str(source)), Weigh(limit, **fields)])


def refused(pipeline: Pipeline, out: Path) -> str:
    with pytest.raises(TrainingError) as caught:
        run(pipeline, out)
    return str(caught.value)


def test_a_refused_result_keeps_its_files_in_a_folder_that_the_error_names(
    tmp_path: Path, source: Path
) -> None:
    pipeline, out = weighing(source, 3), tmp_path / "out"
    message = refused(pipeline, out)
    folder = run_folder(pipeline, out)
    assert "4 letters are too many" in message
    assert f"see the files in {folder / 'refused'}; set Weigh.limit" in message
    assert [path.name for path in (folder / "refused").iterdir()] == ["weight.txt"]
    assert not (folder / "weight.txt").exists()
    events = read_journal(folder / "journal.jsonl")
    assert [event["event"] for event in events[-2:]] == ["stage_finished", "stage_refused"]
    assert events[-1]["detail"] == message


def test_another_limit_runs_no_stage(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    refused(weighing(source, 3), out)
    result = run(weighing(source, 5), out)
    assert result.made == () and result.skipped == ("Read", "Weigh")
    assert (result.folder / "weight.txt").read_text() == "4"
    # The refused run stays refused, and is judged without running its stages.
    assert result.folder != run_folder(weighing(source, 3), out)
    refused(weighing(source, 3), out)
    journal = read_journal(run_folder(weighing(source, 3), out) / "journal.jsonl")
    assert sum(event["event"] == "stage_started" for event in journal) == 2


def test_another_field_is_part_of_the_key(tmp_path: Path, source: Path) -> None:
    run(weighing(source, 5), tmp_path / "out")
    assert run(weighing(source, 5, unit="words"), tmp_path / "out").made == ("Weigh",)


def test_a_note_is_recorded_in_every_run(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    folder = run(weighing(source, 4), out).folder
    assert run(weighing(source, 4), out).made == ()
    notes = [e for e in read_journal(folder / "journal.jsonl") if e["event"] == "note"]
    assert [note["text"] for note in notes] == ["4 letters are just enough"] * 2
    assert all(note["verdict"] and note["stage"] == "Weigh" for note in notes)


def test_plan_knows_what_run_refuses(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    refused(weighing(source, 3), out)
    planned = plan(weighing(source, 3), out)[-1]
    assert (planned.status, planned.why) == ("refused", "4 letters are too many")
    assert plan(weighing(source, 4), out)[-1].status == "cached"


def test_a_run_that_is_accepted_later_has_no_refused_files(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, out = weighing(source, 3), tmp_path / "out"
    refused(pipeline, out)
    monkeypatch.setattr(Weigh, "judge", lambda *_: [])
    folder = run(pipeline, out).folder
    assert not (folder / "refused").exists() and (folder / "weight.txt").exists()


def test_a_refused_run_replaces_earlier_refused_files(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, out = weighing(source, 3), tmp_path / "out"
    refused(pipeline, out)
    aside = run_folder(pipeline, out) / "refused"
    (aside / "old.txt").write_text("of an earlier version")
    refused(pipeline, out)
    assert [path.name for path in aside.iterdir()] == ["weight.txt"]
