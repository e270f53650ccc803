from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from kpipe.report import write_report
from kpipe.report.pruning_charts import filters_left, pruning_rounds, sensitivity_map
from tests.report.conftest import finished, started

PRUNING: dict[str, Any] = {
    "target": {"macs": 0.5},
    "latency_of": "int8",
    "stopped": "round 2 scores 0.61 <i>",
    "rounds": [
        {"round": 0, "macs": 8e6, "share": 1.0, "params": 2e6, "before": 0.9, "after": 0.9,
         "filters": {"stem": 32, "<b>": 64}, "latency_ms": 3.25},
        {"round": 1, "macs": 6e6, "share": 0.75, "params": 1.5e6, "before": 0.7, "after": 0.88,
         "filters": {"stem": 24, "<b>": 48}, "latency_ms": 2.75},
        {"round": 2, "macs": 4e6, "share": 0.5, "params": 1e6, "before": 0.4, "after": 0.61,
         "filters": {"stem": 16, "<b>": 8}, "latency_ms": 1.5},
    ],
    "sensitivity": {
        "whole": 0.9,
        "scores": {"stem": {"0.25": 0.88, "0.5": 0.52}, "<b>": {"0.25": 0.83, "0.5": 0.11}},
        "max_pruning_ratio": {"stem": 0.25, "<b>": 0.0},
    },
}  # fmt: skip


@pytest.fixture
def page(journal, artifact) -> str:
    folder = journal(
        (0, "run_started", {}),
        (1, "stage_started", started("FilterPrune")),
        (2, "stage_finished", finished("FilterPrune", artifact("pruned", pruning_json=PRUNING))),
    )
    return write_report(folder).read_text()


def test_the_page_shows_every_round_and_why_the_loop_stopped(page: str) -> None:
    found = re.findall(r"<td>(.*?)</td>", page)
    for value in ("before pruning", "8.0 M", "75.0 %", "1.50 M", "2.75 ms", "40.0 %", "61.0 %"):
        assert value in found
    assert "round 2 scores 0.61 &lt;i&gt;" in page and "<i>" not in page and "<b>bold" not in page
    assert page.count("<svg") == 3


def test_each_bar_is_labelled_with_the_filters_left() -> None:
    picture = filters_left(PRUNING)
    assert "16 of 32</text>" in picture and "8 of 64</text>" in picture
    assert "&lt;b&gt;" in picture and "<b>" not in picture
    gone = copy.deepcopy(PRUNING)
    del gone["rounds"][-1]["filters"]["stem"]
    assert "0 of 32</text>" in filters_left(gone)


def test_accuracy_is_plotted_against_both_costs() -> None:
    picture = pruning_rounds(PRUNING)
    assert "million multiply-accumulates" in picture and "by LiteRT, int8, 1 thread" in picture
    moved = copy.deepcopy(PRUNING)
    moved["rounds"][1]["latency_ms"] = 1.6
    assert pruning_rounds(moved) != picture == pruning_rounds(PRUNING)


def test_the_map_shows_each_score_and_marks_each_maximum() -> None:
    scan = PRUNING["sensitivity"]
    picture = sensitivity_map(scan)
    for text in ("88%", "52%", "83%", "11%", "25%", "50%", "stem"):
        assert f">{text}</text>" in picture
    without = sensitivity_map({**scan, "max_pruning_ratio": {"stem": 0.0, "<b>": 0.0}})
    assert picture.count("#c2410c") == 1 and without.count("#c2410c") == 0


def test_a_pruning_without_a_scan_has_no_map(journal, artifact) -> None:
    folder = artifact("pruned", pruning_json={**PRUNING, "sensitivity": None, "stopped": ""})
    text = write_report(
        journal(
            (0, "run_started", {}),
            (1, "stage_started", started("FilterPrune")),
            (2, "stage_finished", finished("FilterPrune", folder)),
        )
    ).read_text()
    assert text.count("<svg") == 2 and "Stopped before" not in text
