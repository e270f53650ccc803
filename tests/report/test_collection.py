from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from kpipe.errors import StoreError
from kpipe.report import collect_run
from tests.report.conftest import HISTORY, finished, row, started

RUN = {"pipeline": "pipes", "seed": 3, "fresh": False}


def stage_of(facts: dict, name: str) -> dict:
    (found,) = (stage for stage in facts["stages"] if stage["name"] == name)
    return found


def test_a_folder_without_a_journal_holds_no_run(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no run") as caught:
        collect_run(tmp_path)
    assert "kpipe run FILE" in str(caught.value)


def test_a_run_is_collected_with_its_artifacts(journal, artifact) -> None:
    data = artifact("data", problems_csv="path,kind,detail\n/a.jpg,truncated,ends early\n")
    model = artifact("model", history_json=[HISTORY])
    folder = journal(
        (0, "run_started", RUN),
        (1, "stage_started", started("Data")),
        (2, "note", {"stage": "Data", "text": "60 photos"}),
        (3.5, "stage_finished", finished("Data", data)),
        (4, "stage_started", started("FineTune")),
        (70, "stage_finished", finished("FineTune", model)),
        (71, "run_finished", {"made": ["Data", "FineTune"], "skipped": []}),
    )
    (folder / "metrics.json").write_text(json.dumps({"models": [row("model.tflite", "m")]}))
    (folder / "pipeline.py").write_text("pipeline = ...")
    facts = collect_run(folder)
    assert (facts["pipeline"], facts["run"]) == ("pipes", "0123456789ab")
    assert facts["declaration"] == "pipeline = ..."
    assert facts["problems"] == [{"path": "/a.jpg", "kind": "truncated", "detail": "ends early"}]
    assert facts["trainings"] == [{"stage": "FineTune", **HISTORY}]
    assert facts["metrics"]["models"][0]["accuracy"] == 0.8125
    assert facts["missing"] == []
    assert [stage["name"] for stage in facts["stages"]] == ["Data", "FineTune"]
    data_row = stage_of(facts, "Data")
    assert (data_row["status"], data_row["notes"]) == ("finished", ["60 photos"])
    assert data_row["seconds"] == pytest.approx(2.5)
    assert stage_of(facts, "FineTune")["seconds"] == pytest.approx(66)


def test_the_contact_sheet_of_the_augmentation_is_found(journal, artifact, tmp_path) -> None:
    augmentation = artifact("augmentation", augmentation_json={})
    (tmp_path / "cache" / "augmentation" / "contact_sheet.jpg").write_bytes(b"pixels")
    folder = journal(
        (0, "run_started", RUN),
        (1, "stage_started", started("Augment")),
        (2, "stage_finished", finished("Augment", augmentation)),
    )
    assert collect_run(folder)["contact_sheet"].read_bytes() == b"pixels"


def test_a_run_without_an_export_has_no_metrics(journal) -> None:
    folder = journal((0, "run_started", RUN))
    facts = collect_run(folder)
    assert facts["metrics"] is None and facts["stages"] == [] and facts["declaration"] == ""
    assert facts["contact_sheet"] is None


def test_a_failed_stage_keeps_its_error(journal) -> None:
    folder = journal(
        (0, "run_started", RUN),
        (1, "stage_started", started("Data")),
        (2, "stage_failed", {"stage": "Data", "error": "DataError", "detail": "no images in x"}),
    )
    stage = stage_of(collect_run(folder), "Data")
    assert stage["status"] == "failed"
    assert stage["notes"] == ["no images in x"]


def test_a_killed_stage_is_interrupted(journal) -> None:
    folder = journal((0, "run_started", RUN), (1, "stage_started", started("FineTune")))
    assert stage_of(collect_run(folder), "FineTune")["status"] == "interrupted"


def test_a_resumed_stage_keeps_each_note_once(journal, artifact) -> None:
    folder = journal(
        (0, "run_started", RUN),
        (1, "stage_started", started("FineTune")),
        (2, "note", {"stage": "FineTune", "text": "built"}),
        (10, "run_started", RUN),
        (11, "stage_started", started("FineTune", continues=True)),
        (12, "note", {"stage": "FineTune", "text": "built"}),
        (13, "note", {"stage": "FineTune", "text": "kept epoch 2"}),
        (21, "stage_finished", finished("FineTune", artifact("model"))),
    )
    stage = stage_of(collect_run(folder), "FineTune")
    assert (stage["status"], stage["notes"]) == ("finished", ["built", "kept epoch 2"])
    # One second before it was cut off, ten after; the nine in between nobody worked.
    assert stage["seconds"] == pytest.approx(11)


def test_a_restarted_stage_drops_its_earlier_notes(journal, artifact) -> None:
    folder = journal(
        (0, "run_started", RUN),
        (1, "stage_started", started("Data")),
        (2, "note", {"stage": "Data", "text": "59 photos"}),
        (3, "stage_finished", finished("Data", artifact("old"))),
        (4, "run_started", {**RUN, "fresh": True}),
        (5, "stage_started", started("Data")),
        (6, "note", {"stage": "Data", "text": "60 photos"}),
        (7, "stage_finished", finished("Data", artifact("new"))),
    )
    stage = stage_of(collect_run(folder), "Data")
    assert stage["notes"] == ["60 photos"] and stage["folder"].endswith("new")


def test_a_cached_stage_keeps_its_notes(journal, artifact) -> None:
    data = artifact("data")
    folder = journal(
        (0, "run_started", RUN),
        (1, "stage_started", started("Data")),
        (2, "note", {"stage": "Data", "text": "60 photos"}),
        (3, "stage_finished", finished("Data", data)),
        (4, "run_started", RUN),
        (5, "stage_skipped", finished("Data", data)),
    )
    stage = stage_of(collect_run(folder), "Data")
    assert (stage["status"], stage["notes"]) == ("cached", ["60 photos"])


def test_a_stage_that_the_newest_run_did_not_reach_is_marked(journal, artifact) -> None:
    data = artifact("data")
    folder = journal(
        (0, "run_started", RUN),
        (1, "stage_started", started("Data")),
        (2, "stage_finished", finished("Data", data)),
        (3, "stage_started", started("FineTune")),
        (4, "run_started", RUN),
        (5, "stage_skipped", finished("Data", data)),
    )
    facts = collect_run(folder)
    assert stage_of(facts, "Data")["status"] == "cached"
    assert stage_of(facts, "FineTune")["status"] == "not reached"


def test_a_removed_artifact_is_listed_as_missing(journal, artifact, tmp_path) -> None:
    folder = journal(
        (0, "run_started", RUN),
        (1, "stage_started", started("FineTune")),
        (2, "stage_finished", finished("FineTune", artifact("gone", history_json=[HISTORY]))),
        (3, "stage_started", started("Export")),
        (4, "stage_finished", finished("Export", artifact("here"))),
    )
    shutil.rmtree(tmp_path / "cache" / "gone")
    facts = collect_run(folder)
    assert facts["trainings"] == []
    (line,) = facts["missing"]
    assert line.startswith("FineTune: ") and line.endswith("gone was removed")


def test_a_truncated_journal_line_is_skipped(journal) -> None:
    folder = journal((0, "run_started", RUN), (1, "stage_started", started("Data")))
    with (folder / "journal.jsonl").open("a") as stream:
        stream.write('{"time": "2026-01-31T12:00')
    assert stage_of(collect_run(folder), "Data")["status"] == "interrupted"


LINES = ["5", "[]", "{}", "null", "NaN", '"note"', "{", "[" * 100_000, '{"event": "note"}',
         '{"time": "2026-01-31T12:00:00", "event": "run_started"}',  # no time zone
         '{"time": 5, "event": "run_started"}',
         '{"time": "2026-01-31T12:00:00+00:00", "event": 5}',
         '{"time": "2026-01-31T12:00:00+00:00", "event": "run_started", "stage": []}',
         '{"time": "2026-01-31T12:00:00+00:00", "event": "note", "stage": "Data"}',
         '{"time": "2026-01-31T12:00:00+00:00", "event": "stage_started", "stage": "Data"}',
         '{"time": "2026-01-31T12:00:00+00:00", "event": "stage_finished", "stage": "Data"}',
         '{"time": "2026-01-31T12:00:00+00:00", "event": "stage_failed", "stage": "Data"}',
]  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_a_line_that_is_no_event_is_skipped_and_counted(journal, line: str) -> None:
    folder = journal((0, "run_started", RUN), (1, "stage_started", started("Data")))
    with (folder / "journal.jsonl").open("a") as stream:
        stream.write(f"{line}\n\n{line}\n")
    facts = collect_run(folder)
    assert facts["missing"] == ["journal.jsonl: 2 lines are not events and are skipped"]
    assert stage_of(facts, "Data")["status"] == "interrupted"


def test_verdicts_are_those_of_the_newest_run(journal, artifact) -> None:
    made = artifact("export")
    note = {"stage": "Export", "text": "3 of 39 test photos lost", "verdict": True}
    first = [(1, "stage_finished", finished("Export", made)), (2, "note", note)]
    again = [(4, "stage_skipped", finished("Export", made)), (5, "note", note)]
    folder = journal((0, "run_started", RUN), *first, (3, "run_started", RUN), *again)
    export = stage_of(collect_run(folder), "Export")
    assert export["verdicts"] == ["3 of 39 test photos lost"] and export["notes"] == []
    assert export["status"] == "cached"
