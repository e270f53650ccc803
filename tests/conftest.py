"""One pipeline carried out once, for every test that looks at what a run leaves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kpipe.cli import load_pipeline
from kpipe.core.journal import Event, read_journal
from kpipe.core.runner import Result, run
from tests.walking import declare, draw


@dataclass(frozen=True)
class Walk:
    """A finished run: its declaration, its root and what it left."""

    photos: Path
    file: Path
    root: Path
    result: Result

    @property
    def folder(self) -> Path:
        return self.result.folder

    @property
    def events(self) -> list[Event]:
        return read_journal(self.folder / "journal.jsonl")

    @property
    def metrics(self) -> dict[str, Any]:
        return json.loads((self.folder / "metrics.json").read_text())

    def made_by(self, stage: str) -> Path:
        """The folder of a stage's result."""
        found = [e for e in self.events if e["event"] == "stage_finished" and e["stage"] == stage]
        return (self.folder / found[0]["folder"]).resolve()

    def notes(self, stage: str) -> str:
        told = [e for e in self.events if e["event"] == "note" and e["stage"] == stage]
        return "\n".join(event["text"] for event in told)


@pytest.fixture(scope="session")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    """The tiny pipeline, with one unreadable photo among its sixty."""
    base = tmp_path_factory.mktemp("walk")
    photos = draw(base / "photos")
    (photos / "red" / "torn.png").write_bytes((photos / "red" / "00.png").read_bytes()[:300])
    file = declare(base / "tiny.py", photos)
    return Walk(photos, file, base / "out", run(load_pipeline(file), base / "out"))
