"""Which results a run needs, and which may be removed."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from kpipe.core.inventory import list_results, remove_results, run_folders
from kpipe.core.pipeline import Pipeline
from kpipe.core.runner import plan, run
from kpipe.core.store import Store
from kpipe.errors import StoreError, TrainingError
from tests.core.toys import Count, Join, Read, Repeat


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source.txt").write_text("ab")
    return tmp_path / "source.txt"


def pipeline_on(source: Path, times: int = 2, name: str = "toy") -> Pipeline:
    return Pipeline(name, [Read(str(source)), Repeat(times), Join()])


def unneeded(root: Path) -> list[str]:
    return sorted(one.stage for one in list_results(root) if not one.runs)


def test_a_result_lists_its_size_its_age_and_the_runs_that_need_it(
    tmp_path: Path, source: Path
) -> None:
    first = run(pipeline_on(source), tmp_path / "out").folder
    second = run(pipeline_on(source, times=3), tmp_path / "out").folder
    both = tuple(sorted(f"toy/{folder.name}" for folder in (first, second)))
    found = list_results(tmp_path / "out")
    assert [one.stage for one in found] == ["Read", "Repeat", "Join", "Repeat", "Join"]
    assert found[0].runs == both and found[1].runs == (f"toy/{first.name}",)
    assert {one.state for one in found} == {"finished"}
    assert all(one.size == sum(f.stat().st_size for f in one.path.iterdir()) for one in found)
    assert found[0].modified == found[0].path.stat().st_mtime


def test_only_what_no_run_needs_is_removed(tmp_path: Path, source: Path) -> None:
    root = tmp_path / "out"
    kept = run(pipeline_on(source), root).folder
    gone = run(pipeline_on(source, times=3), root).folder
    assert unneeded(root) == [] and remove_results(root) == []
    shutil.rmtree(gone)  # by hand
    assert unneeded(root) == ["Join", "Repeat"]
    assert [one.stage for one in remove_results(root)] == ["Repeat", "Join"]
    assert len(list_results(root)) == 3
    assert not (root / ".cache" / "locks" / "x").exists()
    assert {step.status for step in plan(pipeline_on(source), root)} == {"cached"}
    assert run(pipeline_on(source), root).skipped == ("Read", "Repeat", "Join")
    assert run_folders(root, [f"toy/{kept.name}"]) == [kept]


def test_a_run_is_removed_with_what_only_it_needs(tmp_path: Path, source: Path) -> None:
    root = tmp_path / "out"
    run(pipeline_on(source), root)
    other = run(pipeline_on(source, times=3, name="other"), root).folder
    folders = run_folders(root, [str(other)])
    would = [one for one in list_results(root, without=folders) if not one.runs]
    removed = remove_results(root, folders)
    assert [one.key for one in removed] == [one.key for one in would]
    assert [one.stage for one in removed] == ["Repeat", "Join"]
    assert not other.parent.exists()
    assert run(pipeline_on(source), root).made == ()


def test_a_result_that_was_replaced_by_a_newer_one_is_not_needed(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "out"
    run(pipeline_on(source), root)
    monkeypatch.setattr(Repeat, "version", 9)
    run(pipeline_on(source), root)
    assert unneeded(root) == ["Repeat"]  # both versions give the same text to Join


def test_an_unfinished_result_is_kept_for_the_run_that_began_it(tmp_path: Path) -> None:
    root, stumble = tmp_path / "out", tmp_path / "stumble"
    stumble.touch()
    pipeline = Pipeline("toy", [Count(3, str(stumble))])
    with pytest.raises(TrainingError):
        run(pipeline, root)
    (one,) = list_results(root)
    assert (one.stage, one.state, len(one.runs)) == ("Count", "unfinished", 1)
    assert remove_results(root) == []
    assert plan(pipeline, root)[0].status == "continues"
    shutil.rmtree(root / "toy")
    assert [one.state for one in remove_results(root)] == ["unfinished"]
    assert plan(pipeline, root)[0].status == "runs"


@pytest.mark.parametrize("suffix", ["damaged", "replaced", "removed"])
def test_what_was_set_aside_is_not_needed(tmp_path: Path, source: Path, suffix: str) -> None:
    root = tmp_path / "out"
    run(pipeline_on(source), root)
    first = list_results(root)[0].path
    shutil.copytree(first, first.with_name(f"{first.name}.{suffix}"))
    damaged = root / ".cache" / ("0" * 64)
    damaged.write_text("a file")
    states = sorted(one.state for one in remove_results(root))
    assert states == sorted(["damaged", "damaged" if suffix == "damaged" else "left over"])
    assert [one.state for one in list_results(root)] == ["finished"] * 3


def test_nothing_is_removed_while_a_run_is_in_progress(tmp_path: Path, source: Path) -> None:
    root = tmp_path / "out"
    shutil.rmtree(run(pipeline_on(source), root).folder)
    with contextlib.closing(Store(root / ".cache")) as store, store.in_use(print):
        with store.in_use(print):  # runs do not exclude each other
            pass
        with pytest.raises(StoreError, match="another run"):
            remove_results(root)
    assert len(remove_results(root)) == 3


def test_an_unknown_run_is_refused_with_the_nearest(tmp_path: Path, source: Path) -> None:
    folder = run(pipeline_on(source), tmp_path / "out").folder
    with pytest.raises(StoreError, match=f"did you mean 'toy/{folder.name}'"):
        run_folders(tmp_path / "out", [f"toi/{folder.name}"])
    with pytest.raises(StoreError, match="there are no runs"):
        run_folders(tmp_path / "absent", ["toy/1"])


def test_a_journal_that_cannot_be_read_stops_a_removal(tmp_path: Path, source: Path) -> None:
    root = tmp_path / "out"
    journal = run(pipeline_on(source), root).folder / "journal.jsonl"
    journal.rename(journal.with_suffix(".aside"))
    journal.mkdir()
    for ask in (list_results, remove_results):
        with pytest.raises(StoreError, match=r"journal\.jsonl cannot be read") as raised:
            ask(root)
        assert "rename or remove" in raised.value.fix
    assert len(list((root / ".cache").glob("*/entry.json"))) == 3


def test_lines_that_are_no_events_are_counted_when_results_are_listed(
    tmp_path: Path, source: Path
) -> None:
    journal = run(pipeline_on(source), tmp_path / "out").folder / "journal.jsonl"
    journal.write_text("torn\n" + journal.read_text() + "{}\n")
    with pytest.warns(UserWarning, match="2 lines of .* are no events"):
        found = list_results(tmp_path / "out")
    assert all(one.runs for one in found)
