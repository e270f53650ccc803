"""Several processes that need the same result at once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kpipe.core.pipeline import Pipeline
from kpipe.core.runner import run
from kpipe.errors import StoreError
from tests.core.toys import Join, Read, Repeat

PROJECT = Path(__file__).parents[2]


class Running:
    """A run in another process: `python -m tests.core.toys`."""

    def __init__(self, tmp_path: Path, name: str, *words: str) -> None:
        command = [sys.executable, "-m", "tests.core.toys", name, str(tmp_path / "gate")]
        self.process = subprocess.Popen(
            [*command, str(tmp_path / "out"), *words],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.events: list[dict[str, Any]] = []

    def until(self, event: str, stage: str = "Gate") -> dict[str, Any]:
        """Read events up to one of the stage."""
        assert self.process.stdout
        for line in self.process.stdout:
            self.events.append(json.loads(line))
            if (self.events[-1]["event"], self.events[-1].get("stage")) == (event, stage):
                return self.events[-1]
        raise AssertionError((event, self.events))

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def ends(self) -> dict[str, Any]:
        """Wait for the end of the run, and return its last event."""
        assert self.process.stdout
        self.events += [json.loads(line) for line in self.process.stdout]
        assert self.process.wait() == 0
        return self.events[-1]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def started(name: str, *words: str) -> Running:
        running.append(Running(tmp_path, name, *words))
        return running[-1]

    yield started
    for one in running:
        one.kill()
        one.process.communicate()


def makers(root: Path) -> set[str]:
    """The processes whose result each run published."""
    return {path.read_text() for path in root.glob("[!.]*/*/text.txt")}


@pytest.mark.parametrize("words", [(), ("fresh",)])
def test_the_second_waits_says_for_what_and_uses_the_result(
    start, tmp_path: Path, words: tuple[str, ...]
) -> None:
    first = start("first", *words)
    first.until("waiting")
    second, third = start("second", *words), start("third", *words)
    for waiter in (second, third):
        text = waiter.until("wait")["text"]
        assert f"process {first.process.pid}" in text and "making the same result" in text
    (tmp_path / "gate").touch()
    assert first.ends()["made"] == ["Gate", "Repeat", "Join"]
    assert second.ends()["skipped"][0] == third.ends()["skipped"][0] == "Gate"
    assert makers(tmp_path / "out") == {str(first.process.pid)}


def test_the_lock_of_a_killed_holder_is_taken_over(start, tmp_path: Path) -> None:
    first = start("first")
    first.until("waiting")
    second = start("second")
    second.until("wait")
    first.kill()
    (tmp_path / "gate").touch()
    assert second.ends()["made"][0] == "Gate"
    assert makers(tmp_path / "out") == {str(second.process.pid)}


def test_a_killed_waiter_disturbs_nobody(start, tmp_path: Path) -> None:
    first = start("first")
    first.until("waiting")
    second = start("second")
    second.until("wait")
    second.kill()
    (tmp_path / "gate").touch()
    assert first.ends()["made"] == ["Gate", "Repeat", "Join"]
    assert start("second").ends()["skipped"] == ["Gate", "Repeat", "Join"]


def test_a_fresh_run_waits_for_the_run_that_makes_the_result_for_the_first_time(
    start, tmp_path: Path
) -> None:
    first = start("first")
    first.until("waiting")
    second = start("second", "fresh")
    second.until("wait")
    (tmp_path / "gate").touch()
    assert first.ends()["made"][0] == second.ends()["skipped"][0] == "Gate"
    assert start("second", "fresh").ends()["skipped"] == []


def test_a_result_whose_input_was_replaced_meanwhile_is_discarded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source.txt"
    source.write_text("ab")
    pipeline = Pipeline("toy", [Read(str(source)), Repeat(), Join()])
    real = Repeat.run

    def replaced(self: Repeat, context: Any) -> None:
        (context.newest("text") / "text.txt").write_text("cd")
        real(self, context)

    with monkeypatch.context() as patch:
        patch.setattr(Repeat, "run", replaced)
        with pytest.raises(StoreError, match="an input of Repeat changed while it ran"):
            run(pipeline, tmp_path / "out")
    with pytest.warns(UserWarning, match="the stage runs again"):
        result = run(pipeline, tmp_path / "out")
    assert result.made == ("Read", "Repeat", "Join")
    assert (result.folder / "joined.txt").read_text() == "ab|abab"
