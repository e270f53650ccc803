import contextlib
import errno
import json
import os
import shutil
import time
from pathlib import Path
from typing import ClassVar

import pytest

from kpipe.core.fingerprint import fingerprint
from kpipe.core.journal import read_journal
from kpipe.core.lock import file_lock
from kpipe.core.pipeline import Pipeline
from kpipe.core.runner import plan, run, run_folder
from kpipe.core.stage import Stage, stage
from kpipe.core.store import Store
from kpipe.errors import DataError, StoreError, TrainingError, WeightsError
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


def test_fresh_makes_again_what_has_a_time_in_the_future(tmp_path, source):
    run(pipeline_on(source), tmp_path / "out")
    for file in (tmp_path / "out" / ".cache").glob("*/*"):
        os.utime(file, (4e9, 4e9))
    again = run(pipeline_on(source), tmp_path / "out", fresh=True)
    assert again.made == ("Read", "Suffix", "Repeat", "Join")
    assert run(pipeline_on(source), tmp_path / "out").made == ()


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


def test_a_stage_that_cannot_continue_says_how_to_start_it_again(tmp_path, monkeypatch):
    stumble = tmp_path / "stumble"
    stumble.touch()
    pipeline = Pipeline("toy", [Count(3, str(stumble))])
    with pytest.raises(TrainingError):
        run(pipeline, tmp_path / "out")
    (partial,) = (tmp_path / "out" / ".cache").glob("*.partial")
    (partial / "state.json").write_text("{")
    real = Count.run

    def reading(self, context):
        if (context.folder / "state.json").exists():
            json.loads((context.folder / "state.json").read_text())
        real(self, context)

    monkeypatch.setattr(Count, "run", reading)
    with pytest.raises(StoreError, match="Count failed when it continued") as raised:
        run(pipeline, tmp_path / "out")
    assert "JSONDecodeError" in raised.value.received
    assert f"rename {partial} to {partial.stem}.damaged" in raised.value.fix
    partial.rename(partial.with_suffix(".damaged"))
    assert run(pipeline, tmp_path / "out").made == ("Count",)


def test_a_defect_of_a_stage_that_does_not_continue_is_raised_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(Count, "run", lambda self, context: [][0])
    with pytest.raises(IndexError):
        run(Pipeline("toy", [Count(3)]), tmp_path / "out")


def result_of(root, stage):
    (entry,) = [entry for entry in entries_of(root) if entry.about["stage"] == stage]
    return entry.folder


def rewrite(folder, **changes):
    """Change fields of an entry; None removes one."""
    entry = {**json.loads((folder / "entry.json").read_text()), **changes}
    kept = {name: value for name, value in entry.items() if value is not None}
    (folder / "entry.json").write_text(json.dumps(kept))


def in_place_of(folder, make):
    shutil.rmtree(folder)
    make(folder)


DAMAGES = {
    "a changed file": lambda folder: (folder / "text.txt").write_text("abaB"),
    "a missing file": lambda folder: (folder / "text.txt").unlink(),
    "an added file": lambda folder: (folder / "more.txt").write_text(""),
    "no entry": lambda folder: (folder / "entry.json").unlink(),
    "torn JSON": lambda folder: (folder / "entry.json").write_text("{"),
    "deep JSON": lambda folder: (folder / "entry.json").write_text("[" * 10**6),
    "no text": lambda folder: (folder / "entry.json").write_bytes(b"\xff\xfe\x00"),
    "null": lambda folder: (folder / "entry.json").write_text("null"),
    "a number": lambda folder: (folder / "entry.json").write_text("5"),
    "a list": lambda folder: (folder / "entry.json").write_text("[]"),
    "an empty object": lambda folder: (folder / "entry.json").write_text("{}"),
    "no digest": lambda folder: rewrite(folder, digest=None),
    "no about": lambda folder: rewrite(folder, about=None),
    "no files": lambda folder: rewrite(folder, files=None),
    "a list of files": lambda folder: rewrite(folder, files=[]),
    "files of numbers": lambda folder: rewrite(folder, files={"text.txt": 5}),
    "NaN": lambda folder: rewrite(folder, about={"seed": float("nan")}),
    "another digest": lambda folder: rewrite(folder, digest="x"),
    "a digest of another type": lambda folder: rewrite(folder, digest={}),
    "another about": lambda folder: rewrite(folder, about={"stage": "Repeat"}),
    "about of another type": lambda folder: rewrite(folder, about="Repeat"),
    "entry.json as a folder": lambda folder: in_place_of(
        folder, lambda path: (path / "entry.json").mkdir(parents=True)
    ),
    "a file in its place": lambda folder: in_place_of(folder, lambda path: path.write_text("hi")),
    "a dangling link": lambda folder: in_place_of(folder, lambda path: path.symlink_to("absent")),
    "a link to itself": lambda folder: in_place_of(folder, lambda path: path.symlink_to(path.name)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_result_is_set_aside_by_name_and_made_again(tmp_path, source, damage):
    out = tmp_path / "out"
    run(pipeline_on(source), out)
    folder = result_of(out, "Repeat")
    for _ in range(2):  # once more, beside what was set aside before
        DAMAGES[damage](folder)
        steps = plan(pipeline_on(source), out)
        assert [step.status for step in steps] == ["cached", "cached", "runs", "waits"]
        assert "is damaged" in steps[2].why
        with pytest.warns(UserWarning, match=f"{folder.name}.damaged, and the stage runs again"):
            result = run(pipeline_on(source), out)
        assert result.made == ("Repeat",)
        assert os.path.lexists(folder.with_name(f"{folder.name}.damaged"))
    assert statuses(pipeline_on(source), out) == ["cached"] * 4


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_unrelated_damaged_result_disturbs_nobody(tmp_path, source, damage):
    out = tmp_path / "out"
    run(pipeline_on(source), out)
    DAMAGES[damage](result_of(out, "Repeat"))
    assert statuses(pipeline_on(source, suffix="?"), out)[:2] == ["cached", "runs"]
    assert run(Pipeline("other", [Count()]), out).made == ("Count",)


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("absent")])
def test_a_file_in_place_of_an_unfinished_result_is_replaced(tmp_path, source, make):
    out = tmp_path / "out"
    run(pipeline_on(source), out)
    folder = result_of(out, "Repeat")
    shutil.rmtree(folder)
    make(folder.with_name(f"{folder.name}.partial"))
    assert statuses(pipeline_on(source), out)[2] == "runs"
    assert run(pipeline_on(source), out).made == ("Repeat",)


def test_measured_figures_do_not_change_the_keys_of_later_stages(tmp_path, source, monkeypatch):
    real = Read.run

    def measuring(self, context):
        real(self, context)
        (context.folder / "measured.json").write_text(str(time.perf_counter_ns()))

    monkeypatch.setattr(Read, "run", measuring)
    run(pipeline_on(source), tmp_path / "out")
    folder = result_of(tmp_path / "out", "Read")
    first = (folder / "measured.json").read_text()
    shutil.rmtree(folder)
    assert run(pipeline_on(source), tmp_path / "out").made == ("Read",)
    assert (folder / "measured.json").read_text() != first
    # Its content is verified all the same.
    (folder / "measured.json").write_text("changed")
    assert "measured.json" in plan(pipeline_on(source), tmp_path / "out")[0].why


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


@stage
class Picky(Stage):
    """Fails early, if files are missing that only it knows of."""

    needs: ClassVar = ("text",)
    gives: ClassVar = ("picky",)

    needed: str
    rehearsed: str

    def check_surroundings(self, earlier):
        assert [given.name for given in earlier] == ["Read"]
        if not Path(self.needed).exists():
            raise WeightsError(f"{self.needed} is missing")
        return ["a download"]

    def rehearse(self, earlier):
        assert [given.name for given in earlier] == ["Read"]
        if not Path(self.rehearsed).exists():
            raise TrainingError(f"{self.rehearsed} does not fit")

    def run(self, context):
        (context.folder / "picky.txt").touch()


def test_what_a_later_stage_lacks_is_said_before_the_first_one_runs(tmp_path, source):
    out, needed, rehearsed = tmp_path / "out", tmp_path / "needed", tmp_path / "rehearsed"
    pipeline = Pipeline("toy", [Read(str(source)), Picky(str(needed), str(rehearsed))])
    for refused in (plan, run):
        with pytest.raises(WeightsError, match="needed is missing"):
            refused(pipeline, out)
    needed.touch()
    assert [step.fetches for step in plan(pipeline, out)] == [(), ("a download",)]
    with pytest.raises(TrainingError, match="does not fit"):
        run(pipeline, out)
    assert not (out / "toy").exists()
    assert entries_of(out) == []
    rehearsed.touch()
    assert run(pipeline, out).made == ("Read", "Picky")


def test_a_stage_that_continues_is_not_rehearsed_again(tmp_path, source, monkeypatch):
    def stumble(self, context):
        raise TrainingError("stumbled")

    out, needed, rehearsed = tmp_path / "out", tmp_path / "needed", tmp_path / "rehearsed"
    needed.touch()
    rehearsed.touch()
    pipeline = Pipeline("toy", [Read(str(source)), Picky(str(needed), str(rehearsed))])
    with monkeypatch.context() as patch:
        patch.setattr(Picky, "run", stumble)
        with pytest.raises(TrainingError, match="stumbled"):
            run(pipeline, out)
    rehearsed.unlink()
    assert statuses(pipeline, out) == ["cached", "continues"]
    assert run(pipeline, out).made == ("Picky",)


def test_a_stage_with_a_result_needs_nothing_any_more(tmp_path, source):
    out, needed = tmp_path / "out", tmp_path / "needed"
    needed.touch()
    pipeline = Pipeline("toy", [Read(str(source)), Picky(str(needed), str(needed))])
    run(pipeline, out)
    needed.unlink()
    assert [(step.status, step.fetches) for step in plan(pipeline, out)] == [("cached", ())] * 2
    assert run(pipeline, out).made == ()
    with pytest.raises(WeightsError):
        run(pipeline, out, fresh=True)
