"""`kpipe init`: a pipeline file from a folder, and what it refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from kpipe.cli import load_pipeline
from kpipe.cli.entry import commands
from kpipe.core.runner import plan
from kpipe.errors import DataError, KpipeError, PipelineError
from tests.walking import draw


@pytest.fixture
def init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`init("photos")`: what the command prints, in a folder of its own."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)

    def command(*words: object) -> str:
        result = CliRunner().invoke(commands, ["init", *map(str, words)])
        if result.exception:
            raise result.exception
        return result.output

    return command


def test_the_file_declares_a_pipeline_for_the_photos(init, tmp_path: Path) -> None:
    photos = draw(tmp_path / "photos")
    before = {path: path.read_bytes() for path in photos.rglob("*.png")}
    output = init("photos")
    assert "60 photos of 3 classes, 16 to 24 in each; color, 48 x 40 pixels" in output
    assert "next: kpipe run pipeline.py   (about 2 to" in output
    pipeline = load_pipeline(Path("pipeline.py"))
    assert pipeline.name == "photos"
    assert pipeline.stages[0].source == "photos" and pipeline.stages[0].min_photos == 2
    assert [step.status for step in plan(pipeline, tmp_path / "out")][:3] == ["runs"] + [
        "waits"
    ] * 2
    assert {path: path.read_bytes() for path in photos.rglob("*.png")} == before


def test_a_plan_of_it_as_json_names_each_stage(init, tmp_path: Path) -> None:
    draw(tmp_path / "photos")
    init("photos")
    result = CliRunner().invoke(commands, ["plan", "pipeline.py", "--json"])
    found = json.loads(result.output)
    assert (found["command"], found["pipeline"], found["seed"]) == ("plan", "photos", 7)
    assert found["stages"][0].keys() == {"stage", "status", "why", "fetches"}
    assert [row["stage"] for row in found["stages"]][:2] == ["Data", "Balance"]


def test_target_effort_and_file_are_chosen(init, tmp_path: Path) -> None:
    draw(tmp_path / "photos")
    assert "wrote new/server.py" in init(
        "photos", "--for", "server", "--effort", "best", "-o", "new/server.py"
    )
    names = [stage.name for stage in load_pipeline(Path("new/server.py")).stages]
    assert "Ensemble" in names and "FilterPrune" not in names


def test_a_file_is_written_over_only_by_force(init, tmp_path: Path) -> None:
    draw(tmp_path / "photos")
    Path("pipeline.py").write_text("mine")
    with pytest.raises(PipelineError, match=r"already exists[\s\S]*--force"):
        init("photos")
    assert Path("pipeline.py").read_text() == "mine"
    init("photos", "--force")
    load_pipeline(Path("pipeline.py"))


def test_too_few_photos_are_named_and_a_broken_one_is_no_obstacle(init, tmp_path: Path) -> None:
    draw(tmp_path / "photos", {"red": 3, "green": 20, "blue": 60})
    (tmp_path / "photos" / "blue" / "00.png").write_bytes(b"torn")
    output = init("photos")
    assert "warning: fewer than 10 photos of red" in output
    assert "warning: fewer than 50 photos of green" in output
    assert "82 photos" in output
    assert "warning: 1 of 83 files cannot be used, and a run leaves them out" in output


def test_what_a_run_would_refuse_is_said_before(init, tmp_path: Path) -> None:
    draw(tmp_path / "photos", {"red": 2, "green": 20, "blue": 60})
    for number in range(5):
        (tmp_path / "photos" / "blue" / f"{number:02}.png").write_bytes(b"torn")
    (tmp_path / "photos" / "grey").mkdir()
    (tmp_path / "photos" / "grey" / "0.png").write_bytes(b"torn")
    output = init("photos")
    assert "warning: fewer than 3 photos of red: a run refuses them" in output
    assert "warning: 6 of 83 files cannot be used, and a run refuses so many" in output
    assert "warning: no photo of grey can be used" in output
    assert "every class" not in Path("pipeline.py").read_text()


@pytest.mark.parametrize("name", ["it's", 'say "a"', "back\\slash", "Ünïcode 猫", "-dash"])
def test_any_folder_name_is_declared(init, tmp_path: Path, name: str) -> None:
    draw(tmp_path / name)
    init("--", name)
    pipeline = load_pipeline(Path("pipeline.py"))
    assert pipeline.stages[0].source == name
    assert plan(pipeline, tmp_path / "out")[0].status == "runs"


def test_the_next_command_repeats_the_root(init, tmp_path: Path) -> None:
    draw(tmp_path / "photos")
    assert "next: kpipe run ./-x.py --root other " in init("photos", "-o-x.py", "--root", "other")


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (["empty"], DataError, "empty"),
        (["absent"], DataError, "absent"),
        (["flat"], DataError, "class"),
        (["one"], DataError, "class"),
        (["one/a/00.png"], DataError, r"is a file[\s\S]*a folder of photos for each class"),
        (["photos", "-o", "empty"], PipelineError, r"is a folder[\s\S]*--output empty/pipeline.py"),
        (["photos", "-o", "one/a/00.png/x.py"], KpipeError, "--output"),
        (["photos", "-o", "table.csv"], PipelineError, r"ends in .py[\s\S]*--output table.py"),
    ],
)
def test_what_is_no_folder_of_classes_is_refused(
    init, tmp_path: Path, words: list[str], error: type[Exception], said: str
) -> None:
    (tmp_path / "empty").mkdir()
    source = draw(tmp_path / "photos")
    (tmp_path / "flat").mkdir()
    (tmp_path / "one" / "a").mkdir(parents=True)
    for number in range(5):
        for folder in (tmp_path / "flat", tmp_path / "one" / "a"):
            os.link(source / "red" / f"{number:02}.png", folder / f"{number:02}.png")
    with pytest.raises(error, match=said):
        init(*words)
    assert not (tmp_path / "pipeline.py").exists()
