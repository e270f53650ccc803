from __future__ import annotations

import json
from pathlib import Path

from kpipe.report.results import read_metrics, read_pruning
from tests.report.conftest import row


def test_measured_figures_join_what_was_computed(tmp_path: Path) -> None:
    model = {name: value for name, value in row("m.tflite", "m").items() if name != "median_ms"}
    (tmp_path / "metrics.json").write_text(json.dumps({"models": [model]}))
    (tmp_path / "pruning.json").write_text(json.dumps({"rounds": [{"macs": 9}, {"macs": 5}]}))
    measured = {"models": {"m.tflite": {"median_ms": 1.5}}, "latency_ms": [3.0, 2.0]}
    (tmp_path / "measured.json").write_text(json.dumps(measured))
    assert read_metrics(tmp_path)["models"] == [{**model, "median_ms": 1.5}]
    assert [one["latency_ms"] for one in read_pruning(tmp_path)["rounds"]] == [3.0, 2.0]


def test_older_results_hold_their_figures_themselves(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) is read_pruning(tmp_path) is None
    (tmp_path / "metrics.json").write_text(json.dumps({"models": [row("m.tflite", "m")]}))
    (tmp_path / "pruning.json").write_text(json.dumps({"rounds": [{"latency_ms": 3.0}]}))
    assert read_metrics(tmp_path)["models"] == [row("m.tflite", "m")]
    assert read_pruning(tmp_path)["rounds"] == [{"latency_ms": 3.0}]


def test_photos_lost_and_won_of_older_results_are_unknown(tmp_path: Path) -> None:
    new = row("m.tflite", "m")
    old = {name: value for name, value in new.items() if name not in ("lost", "won")}
    (tmp_path / "metrics.json").write_text(json.dumps({"models": [old]}))
    assert read_metrics(tmp_path)["models"] == [{**new, "lost": None, "won": None}]
