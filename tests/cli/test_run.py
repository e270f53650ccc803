"""What `kpipe run` prints for scripts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from kpipe.cli.entry import commands
from tests.walking import draw


def test_a_quiet_run_prints_nothing_and_json_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "photos")
    Path("data.py").write_text(
        "from kpipe import Pipeline\nfrom kpipe.stages import Data\n"
        'pipeline = Pipeline("colors", [Data("photos", image_size=32)])\n'
    )
    assert CliRunner().invoke(commands, ["run", "data.py", "--quiet"]).output == ""
    found = json.loads(CliRunner().invoke(commands, ["run", "data.py", "--json"]).output)
    assert (found["command"], found["made"], found["skipped"]) == ("run", [], ["Data"])
    assert Path(found["folder"], "manifest.csv").exists() and Path(found["report"]).exists()


def test_what_a_pipeline_file_prints_is_no_part_of_the_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "photos")
    Path("loud.py").write_text(
        "from kpipe import Pipeline\nfrom kpipe.stages import Data\nprint('hello')\n"
        'pipeline = Pipeline("colors", [Data("photos", image_size=32)])\n'
    )
    for command in ("plan", "run"):
        done = CliRunner().invoke(commands, [command, "loud.py", "--json"])
        assert json.loads(done.stdout)["command"] == command and "hello" in done.stderr
