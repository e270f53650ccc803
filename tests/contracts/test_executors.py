"""The contract of every executor; add a new one to the list."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from kpipe.core.executor import Executor, LocalExecutor
from kpipe.core.journal import Journal, read_journal
from kpipe.core.pipeline import Pipeline
from kpipe.core.runner import run
from kpipe.core.stage import Context
from kpipe.errors import TrainingError
from tests.core.toys import Count, Join, Read, Repeat

EXECUTORS = [LocalExecutor]


@pytest.fixture(params=EXECUTORS)
def executor(request: pytest.FixtureRequest) -> Executor:
    return request.param()


@pytest.fixture
def context(tmp_path: Path) -> Context:
    for name in ("made", "given"):
        (tmp_path / name).mkdir()
    (tmp_path / "given" / "text.txt").write_text("ab")
    journal = Journal(tmp_path / "journal.jsonl", (print,), "Repeat")
    return Context(tmp_path / "made", {"text": (tmp_path / "given",)}, 7, journal)


def test_it_runs_a_stage_in_its_folder_and_leaves_the_inputs(
    executor: Executor, context: Context
) -> None:
    assert executor.execute(Repeat(3), context) is None
    assert (context.folder / "text.txt").read_text() == "ababab"
    assert (context.newest("text") / "text.txt").read_text() == "ab"


def test_what_the_stage_records_is_in_the_journal(executor: Executor, context: Context) -> None:
    executor.execute(Count(upto=2), context)
    events = read_journal(context.journal.path)
    assert [(event["event"], event["number"]) for event in events] == [
        ("counted", 0),
        ("counted", 1),
    ]


def test_the_exception_of_a_stage_passes_unchanged(
    executor: Executor, context: Context, tmp_path: Path
) -> None:
    stumble = tmp_path / "stone"
    stumble.touch()
    with pytest.raises(TrainingError, match="stumbled") as caught:
        executor.execute(Count(stumble=str(stumble)), context)
    assert caught.value.fix == "run again"
    with pytest.raises(FileNotFoundError):
        executor.execute(Join(), Context(context.folder, {"text": (tmp_path,)}, 0, context.journal))


def test_an_interrupted_stage_finds_its_folder_unchanged(
    executor: Executor, context: Context, tmp_path: Path
) -> None:
    stumble = tmp_path / "stone"
    stumble.touch()
    stage = Count(stumble=str(stumble))
    with pytest.raises(TrainingError):
        executor.execute(stage, context)
    executor.execute(stage, context)
    events = [event["event"] for event in read_journal(context.journal.path)]
    assert events == ["counted", "found", "counted", "counted"]


def test_stage_and_context_can_be_sent_to_another_process(
    executor: Executor, context: Context
) -> None:
    stage, sent = pickle.loads(pickle.dumps((Repeat(2), context)))
    executor.execute(stage, sent)
    assert (context.folder / "text.txt").read_text() == "abab"
    # What draws on a terminal stays here.
    assert sent.journal.listeners == ()
    assert (sent.folder, sent.inputs, sent.seed) == (context.folder, context.inputs, context.seed)


def test_the_runner_uses_it(executor: Executor, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("ab")
    pipeline = Pipeline("toy", [Read(str(tmp_path / "a.txt")), Repeat(2), Join()])
    result = run(pipeline, tmp_path / "out", executor=executor)
    assert result.made == ("Read", "Repeat", "Join")
    assert (result.folder / "joined.txt").read_text() == "ab|abab"
