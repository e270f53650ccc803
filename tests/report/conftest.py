"""Folders of runs, written by hand: a report needs nothing but the files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HISTORY = {
    "title": "MobileNet 0.25",
    "history": {
        "loss": [1.2, 0.9, 0.5, 0.6],
        "accuracy": [0.3, 0.5, 0.8, 0.7],
        "val_loss": [1.3, 1.0, 0.7, 0.8],
        "val_accuracy": [0.2, 0.4, 0.75, 0.7],
    },
    "switched_at": 2,
    "best_epoch": 2,
}


def row(file: str, name: str, **changes: Any) -> dict[str, Any]:
    """A row of metrics.json."""
    return {
        "file": file,
        "name": name,
        "accuracy": 0.8125,
        "balanced_accuracy": 0.7345,
        "keras_accuracy": 0.8,
        "agreement": 0.95,
        "lost": 3,
        "won": 1,
        "confusion": [[9, 1], [2, 4]],
        "macs": 12_300_000,
        "parameters": 1_230_000,
        "size": 4_560_000,
        "gzip_size": 4_000_000,
        "median_ms": 3.21,
        "p95_ms": 4.32,
        **changes,
    }


@pytest.fixture
def journal(tmp_path: Path) -> Callable[..., Path]:
    """`journal((seconds, event, facts), ...)` writes a run's journal, returns its folder."""
    folder = tmp_path / "pipes" / "0123456789ab"
    folder.mkdir(parents=True)

    def write(*events: tuple[float, str, dict[str, Any]]) -> Path:
        with (folder / "journal.jsonl").open("w") as stream:
            for seconds, event, facts in events:
                minute, second = divmod(seconds, 60)
                time = f"2026-01-31T12:{int(minute):02}:{second:06.3f}+00:00"
                stream.write(json.dumps({"time": time, "event": event, **facts}) + "\n")
        return folder

    return write


@pytest.fixture
def artifact(tmp_path: Path) -> Callable[..., str]:
    """`artifact(name, file=content, ...)` makes a stage's folder, named as in journals."""

    def make(name: str, **files: Any) -> str:
        folder = tmp_path / "cache" / name
        folder.mkdir(parents=True)
        for file, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / file.replace("_", ".")).write_text(text)
        return f"../../cache/{name}"

    return make


def started(stage: str, continues: bool = False) -> dict[str, Any]:
    return {"stage": stage, "continues": continues}


def finished(stage: str, folder: str) -> dict[str, Any]:
    return {"stage": stage, "key": "k" * 64, "folder": folder}
