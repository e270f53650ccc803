"""oneDNN is on where TensorFlow leaves it off, unless the user says otherwise."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import ClassVar

import pytest

from kpipe import Pipeline
from kpipe.core.journal import read_journal
from kpipe.core.onednn import enable_onednn
from kpipe.core.runner import run
from kpipe.core.stage import Context, Stage, stage


@stage
class Idle(Stage):
    packages: ClassVar = ("tensorflow",)

    def rehearse(self, earlier: Sequence[Stage]) -> None:
        assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == "1"

    def run(self, context: Context) -> None:
        pass


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process that has not loaded TensorFlow, on an x86 processor, with no wish of the user."""
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "")
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS")
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("sys.platform", "linux")
    return monkeypatch


def test_a_run_turns_it_on_before_its_stages_and_says_so(fresh, tmp_path) -> None:
    def notes() -> list[str]:
        folder = run(Pipeline("p", [Idle()]), tmp_path).folder
        events = read_journal(folder / "journal.jsonl")
        return [event["text"] for event in events if event["event"] == "note"]

    said = "TensorFlow uses oneDNN (TF_ENABLE_ONEDNN_OPTS=0 turns it off)"
    assert notes() == [said]
    fresh.delenv("TF_ENABLE_ONEDNN_OPTS")
    assert notes() == [said], "nothing is computed, so nothing is said again"


@pytest.mark.parametrize("chosen", ["0", "1"])
def test_what_the_user_chose_stays(fresh, chosen) -> None:
    fresh.setenv("TF_ENABLE_ONEDNN_OPTS", chosen)
    assert enable_onednn() == ""


def test_nothing_changes_once_tensorflow_is_loaded_or_on_another_processor(fresh) -> None:
    fresh.setitem(sys.modules, "tensorflow", sys)
    assert enable_onednn() == ""
    fresh.delitem(sys.modules, "tensorflow")
    fresh.setattr("platform.machine", lambda: "arm64")
    assert enable_onednn() == ""


@pytest.mark.slow
def test_tensorflow_reads_the_variable() -> None:
    """A private function of TensorFlow tells whether its operations are those of oneDNN."""
    script = (
        "import json, os; os.environ.pop('TF_ENABLE_ONEDNN_OPTS', None)\n"
        "from kpipe.core.onednn import enable_onednn; said = enable_onednn()\n"
        "from tensorflow.python.util import _pywrap_util_port as port\n"
        "print(json.dumps([said, port.IsMklEnabled()]))"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    said, enabled = json.loads(outcome.stdout.splitlines()[-1])
    assert enabled or not said
