import contextlib
import errno
import json

import pytest

from kpipe.core.fingerprint import fingerprint
from kpipe.core.journal import read_journal
from kpipe.core.lock import file_lock
from kpipe.core.pipeline import Pipeline
from kpipe.core.runner import plan, run, run_folder
from kpipe.core.store import Store
from kpipe.errors import DataError, StoreError, TrainingError
from tests.core.toys import Count, Join, Read, Repeat, Suffix


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.txt"
    path.write_text("ab")
    return path


def pipeline_on(source, times=2, suffix="!"):
    return Pipeline("toy", [Read(str(source)), Suffix(suffix), Repeat(times), Join()])


def entries_of(root):
    with contextlib.closing(Store(root / ".cache")) as store:
        return store.entries()


def statuses(pipeline, root):
    return [step.status for step in plan(pipeline, root)]


def test_a_run_publishes_its_result_and_renders_its_declaration(tmp_path, source):
    result = run(pipeline_on(source), tmp_path / "out")
    assert (result.folder / "joined.txt").read_text() == "ab|abab!"
    assert "pipeline = Pipeline(" in (result.folder / "pipeline.py").read_text()
    assert result.folder == run_folder(pipeline_on(source), tmp_path / "out")


def test_a_second_run_runs_no_stage(tmp_path, source):
    first = run(pipeline_on(source), tmp_path / "out")
    second = run(pipeline_on(source), tmp_path / "out")
    assert first.made == second.skipped == ("Read", "Suffix", "Repeat", "Join")
    assert second.made == ()
    assert second.folder == first.folder


def test_a_changed_field_runs_its_stage_and_what_depends_on_it(tmp_path, source):
    run(pipeline_on(source), tmp_path / "out")
    assert run(pipeline_on(source, times=3), tmp_path / "out").made == ("Repeat", "Join")
    assert run(pipeline_on(source, suffix="?"), tmp_path / "out").made == ("Suffix", "Join")


def test_changed_data_starts_a_new_run(tmp_path, source):
    first = run(pipeline_on(source), tmp_path / "out")
    source.write_text("cd")
    second = run(pipeline_on(source), tmp_path / "out")
    assert second.made == ("Read", "Repeat", "Join")
    assert second.folder != first.folder


def test_an_unchanged_result_keeps_later_stages_cached(tmp_path, source):
    run(pipeline_on(source), tmp_path / "out")
    source.write_text("AB")
    run(pipeline_on(source), tmp_path / "out")
    source.write_text("ab")
    changed = Pipeline("toy", [Read(str(source), upper=True), *pipeline_on(source).stages[1:]])
    assert run(changed, tmp_path / "out").made == ("Read",)


def test_fresh_makes_everything_again(tmp_path, source):
    run(pipeline_on(source), tmp_path / "out")
    assert run(pipeline_on(source), tmp_path / "out", fresh=True).skipped == ()


def test_the_plan_shows_what_would_run_and_why(tmp_path, source):
    out = tmp_path / "out"
    assert statuses(pipeline_on(source), out) == ["runs", "runs", "waits", "waits"]
    run(pipeline_on(source), out)
    assert statuses(pipeline_on(source), out) == ["cached"] * 4
    steps = plan(pipeline_on(source, times=3), out)
    assert [step.status for step in steps] == ["cached", "cached", "runs", "waits"]
    assert steps[2].why == "differs from the last result: times 2 -> 3"
    assert steps[3].why == "for Repeat"


def test_an_interrupted_stage_resumes_in_its_folder(tmp_path):
    stumble = tmp_path / "stumble"
    stumble.touch()
    pipeline = Pipeline("toy", [Count(3, str(stumble))])
    with pytest.raises(TrainingError):
        run(pipeline, tmp_path / "out")
    assert statuses(pipeline, tmp_path / "out") == ["continues"]
    result = run(pipeline, tmp_path / "out")
    events = [event["event"] for event in read_journal(result.folder / "journal.jsonl")]
    assert events == [
        "run_started", "stage_started", "counted", "stage_failed",
        "run_started", "stage_started", "found", "counted", "counted", "stage_finished",
        "run_finished",
    ]  # fmt: skip
    assert (result.folder / "count.txt").read_text() == "3"


@pytest.mark.parametrize("damage", ["change", "remove", "add", "entry"])
def test_a_corrupt_entry_warns_and_its_stage_runs_again(tmp_path, source, damage):
    run(pipeline_on(source), tmp_path / "out")
    for entry in (tmp_path / "out/.cache").glob("*/entry.json"):
        if json.loads(entry.read_text())["about"]["stage"] == "Repeat":
            folder = entry.parent
    damages = {
        "change": lambda: (folder / "text.txt").write_text("abaB"),
        "remove": lambda: (folder / "text.txt").unlink(),
        "add": lambda: (folder / "more.txt").write_text(""),
        "entry": lambda: (folder / "entry.json").write_text("{"),
    }
    damages[damage]()
    with pytest.warns(UserWarning, match="the stage runs again"):
        result = run(pipeline_on(source), tmp_path / "out")
    assert result.made == ("Repeat",)


def test_a_source_that_does_not_exist_is_an_error_and_leaves_no_run(tmp_path):
    with pytest.raises(DataError, match=r"absent\.txt"):
        run(pipeline_on(tmp_path / "absent.txt"), tmp_path / "out")
    assert not (tmp_path / "out/toy").exists()


def test_two_runs_at_once_are_refused(tmp_path, source):
    folder = run(pipeline_on(source), tmp_path / "out").folder
    with file_lock(folder / ".lock"), pytest.raises(StoreError, match="another run"):
        run(pipeline_on(source), tmp_path / "out")


def test_a_full_disk_is_reported_and_keeps_finished_work(tmp_path, source, monkeypatch):
    def full(self, key, about):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "commit", full)
        with pytest.raises(StoreError, match="is full"):
            run(pipeline_on(source), tmp_path / "out")
    assert statuses(pipeline_on(source), tmp_path / "out")[0] == "continues"
    assert run(pipeline_on(source), tmp_path / "out").made == ("Read", "Suffix", "Repeat", "Join")


def test_listeners_receive_every_stored_event(tmp_path, source):
    heard = []
    result = run(pipeline_on(source), tmp_path / "out", listeners=(heard.append,))
    assert heard == read_journal(result.folder / "journal.jsonl")


def test_a_cache_key_is_pinned(tmp_path):
    # A change of this literal invalidates every user's cache: it must be meant.
    run(Pipeline("toy", [Count(upto=3)], seed=7), tmp_path / "out")
    (entry,) = entries_of(tmp_path / "out")
    assert entry.key == "a2c6e366b946e1d08061f1f17e6520b8519dec5e52cfa1e07e77ca471a03e962"


def test_a_key_is_the_fingerprint_of_the_entrys_about(tmp_path, source):
    run(pipeline_on(source), tmp_path / "out")
    entries = entries_of(tmp_path / "out")
    assert len(entries) == 4
    assert all(fingerprint(entry.about) == entry.key for entry in entries)
