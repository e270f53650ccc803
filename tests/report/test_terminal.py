from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from kpipe.report import Progress, models_table
from tests.report.conftest import row


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=100)


def printed(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_each_stored_event_is_a_line(console: Console) -> None:
    epoch = {"what": "m", "epoch": 2, "epochs": 9, "metrics": {"loss": 0.51234, "accuracy": 0.75}}
    with Progress(console) as progress:
        for event in (
            {"event": "run_started", "seed": 1},
            {"event": "stage_skipped", "stage": "Data"},
            {"event": "stage_started", "stage": "FineTune", "continues": True},
            {"event": "stage_started", "stage": "Export", "continues": False},
            {"event": "step", "what": "m", "done": 1, "total": 4},
            {"event": "epoch", **epoch},
            {"event": "wait", "stage": "Data", "text": "waits for process 7"},
            {"event": "note", "text": "a path [/x] with [bold] brackets"},
            {"event": "stage_finished", "stage": "Export"},
        ):
            progress.show(event)
    assert printed(console).splitlines() == [
        "Data is cached",
        "FineTune resumes",
        "Export runs",
        "  m, epoch 2/9:  loss 0.5123  accuracy 0.75",
        "Data waits for process 7",
        "  a path [/x] with [bold] brackets",
    ]


def test_on_a_terminal_a_bar_counts_the_steps() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    with Progress(console) as progress:
        progress.show({"event": "step", "what": "member 2", "done": 3, "total": 4})
        progress._bars.refresh()
        progress.show({"event": "stage_finished", "stage": "Ensemble"})
    assert "member 2" in printed(console) and "3/4" in printed(console)


def test_a_long_line_is_not_broken(console: Console) -> None:
    path = "/photos/" + "x" * 200 + ".jpg"
    with Progress(console) as progress:
        progress.show({"event": "note", "text": path})
    assert path in printed(console)


def test_a_run_without_an_export_has_no_table(tmp_path: Path) -> None:
    assert models_table(tmp_path) is None


def test_the_table_has_one_row_per_model(tmp_path: Path, console: Console) -> None:
    metrics = {
        "test_images": 16,
        "final": "model.tflite",
        "models": [row("a.tflite", "single"), row("model.tflite", "int8", accuracy=0.5)],
    }
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    console.print(models_table(tmp_path))
    lines = {
        line.split()[0]: line.split() for line in printed(console).splitlines() if line.strip()
    }
    assert lines["single"] == ["single", "81.2%", "73.5%", "12.3", "1.23", "4.56", "3.21"]
    assert lines["int8"][1] == "50.0%"
    assert "16 test photos" in printed(console)
