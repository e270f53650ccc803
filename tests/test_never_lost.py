"""A run that is killed again and again ends with the same files as an uninterrupted one.

Each process resumes a stage that another one left half done, so the result of a stage depends
neither on the process that started it nor on what that process did before.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kpipe.cli import load_pipeline
from kpipe.core.journal import read_journal
from kpipe.core.runner import run_folder
from tests.walking import declare, draw

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[1]
KILLS = 20
PUBLISHED = ("model.tflite", "model.keras", "labels.txt", "metrics.json")

# In the order of the run, so that all are reached: before writes and renames.
MOMENTS = [
    ("write:images.npy", 1),
    ("rename:.partial", 1),
    ("rename:epoch-", 1),
    ("rename:.model.keras", 1),
    ("write:metrics.json", 1),
    ("rename:.model.tflite", 1),
]


def same(one: Path, other: Path) -> None:
    """Assert that two run folders publish the same files."""
    names = sorted(path.name for path in one.glob("*.tflite"))
    assert names == sorted(path.name for path in other.glob("*.tflite"))
    for name in {*names, *PUBLISHED}:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def command(*words: object) -> list[str]:
    return [sys.executable, *map(str, words)]


def test_killed_before_writes_and_renames_it_ends_the_same(walk, tmp_path: Path) -> None:
    for turn, (moment, number) in enumerate(MOMENTS):
        done = subprocess.run(
            command("-m", "tests.killed", moment, number, "run", walk.file, "--root", tmp_path),
            cwd=PROJECT,
            env={**os.environ, "PYTHONHASHSEED": str(turn)},  # sets in another order each time
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, (
            moment,
            done.stdout[-2000:],
            done.stderr[-2000:],
        )
        # An interrupted run publishes nothing.
        assert not list(tmp_path.glob("[!.]*/*/metrics.json"))
    done = subprocess.run(
        command("-c", "from kpipe.cli import main; main()", "run", walk.file, "--root", tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    folder = run_folder(load_pipeline(walk.file), tmp_path)
    same(folder, walk.folder)
    events = read_journal(folder / "journal.jsonl")
    made = [event["stage"] for event in events if event["event"] == "stage_finished"]
    assert len(made) == len(set(made)) == 8, "a finished stage was made again"


@pytest.mark.parametrize("seed", [1])
def test_killed_at_twenty_events_it_ends_the_same(tmp_path: Path, seed: int) -> None:
    source = draw(tmp_path / "photos")
    file = declare(tmp_path / "tiny.py", source)
    text = file.read_text()
    for old, new in {
        "retrain_last=None": "retrain_last=None, head_epochs=2, cached_views=2",
        "rounds=1": "rounds=2, epochs=1, round_to=4, latency_of=None",
    }.items():
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)
    done = subprocess.run(
        command("-m", "tests.killed_often", file, tmp_path, KILLS, seed),
        cwd=PROJECT,
        env={**os.environ, "TF_ENABLE_ONEDNN_OPTS": "1"},  # as in a user's run
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout)  # the seed's kills
    assert done.returncode == 0, done.stderr[-3000:]
    counts, *kills = map(json.loads, done.stdout.splitlines())
    assert len(kills) == KILLS
    assert {stage for stage, _ in kills} == set(counts) > {"FineTune", "FilterPrune", "Export"}
    folders = [run_folder(load_pipeline(file), tmp_path / root) for root in ("never", "killed")]
    same(*folders)
