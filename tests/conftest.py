"""One pipeline carried out once for every test that looks at what a run leaves; a tidy heap."""

from __future__ import annotations

import gc
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import settings

from kpipe.cli import load_pipeline
from kpipe.core.journal import Event, read_journal
from kpipe.core.runner import RunResult, run
from tests.walking import declare, draw

# Two workers share two cores: with a thread for each core, theirs wait for one another.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
# Runs in this process and in others must round alike, whatever loads TensorFlow first.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

# A busy machine is no fault of the code.
settings.register_profile("kpipe", deadline=None)
settings.load_profile("kpipe")


@dataclass(frozen=True)
class Walk:
    """A finished run: its declaration, its root and what it left."""

    photos: Path
    file: Path
    root: Path
    result: RunResult

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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A whole run takes minutes, which only `-m slow` has."""
    for item in items:
        if "walk" in getattr(item, "fixturenames", ()):
            item.add_marker("slow")


@pytest.fixture(scope="module", autouse=True)
def _tidy() -> None:
    """What earlier modules left is not looked through again: that once took a test 80 seconds."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Dropout and initial weights are drawn alike in every run of a test, alone or after others."""
    if keras := sys.modules.get("keras"):
        keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def walk(tmp_path_factory: pytest.TempPathFactory, testrun_uid: str) -> Walk:
    """The tiny pipeline, with one unreadable photo among its sixty; made once for all workers."""
    # Each worker has a folder of its own inside the one of the whole test run.
    base = tmp_path_factory.getbasetemp().parent / f"walk-{testrun_uid}"
    photos, file, root = base / "photos", base / "tiny.py", base / "out"
    done = base / "result.json"
    with FileLock(f"{base}.lock"):
        if not done.exists():
            draw(photos)
            torn = photos / "red" / "torn.png"
            torn.write_bytes((photos / "red" / "00.png").read_bytes()[:300])
            result = run(load_pipeline(declare(file, photos)), root)
            done.write_text(json.dumps([str(result.folder), result.made, result.skipped]))
    folder, made, skipped = json.loads(done.read_text())
    return Walk(photos, file, root, RunResult(Path(folder), tuple(made), tuple(skipped)))
