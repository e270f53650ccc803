"""Folders, paths, terminals and signals that a command meets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.walking import draw

MAIN = [sys.executable, "-c", "from kpipe.cli import main; main()"]
DECLARATION = """
from kpipe import Pipeline
from kpipe.stages import Data

pipeline = Pipeline("photos", [Data({photos!r}, image_size=32)], seed=1)
"""
WAITING = """
from pathlib import Path
import time
from kpipe import Pipeline
from kpipe.core.stage import Stage, stage

@stage
class Wait(Stage):
    publishes = ("a.txt",)
    def run(self, context):
        (context.folder / "a.txt").touch()
        print("waits", flush=True)
        time.sleep(60)

pipeline = Pipeline("waiting", [Wait()])
"""
Kpipe = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def kpipe(tmp_path: Path) -> Kpipe:
    """`kpipe("run", file, cwd=, env=)`: the command in its own process, in `tmp_path`."""

    def run(*words: object, cwd: Path = tmp_path, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*MAIN, *map(str, words)],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **env},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )

    return run


@pytest.fixture
def declared(tmp_path: Path) -> Path:
    file = tmp_path / "photos.py"
    file.write_text(DECLARATION.format(photos=str(draw(tmp_path / "photos"))))
    return file


def refused(outcome: subprocess.CompletedProcess[str], *words: str) -> None:
    assert outcome.returncode == 2, outcome
    assert "Traceback" not in outcome.stderr
    for word in (*words, "expected", "what to do"):
        assert word in outcome.stderr


def roots(tmp_path: Path) -> dict[str, Path]:
    """Places where no folder of results can be made."""
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "absent" / "x")
    (tmp_path / "loop").symlink_to("loop")
    return {
        "a file on the way": tmp_path / "file" / "out",
        "a dangling link": tmp_path / "dangling",
        "a link to itself": tmp_path / "loop" / "out",
        "a long name": tmp_path / ("n" * 300),
        "a long path": tmp_path.joinpath(*["d" * 90] * 6),
        "a folder of the system": Path("/proc/saved"),
    }


PLACES = [
    "a file on the way",
    "a dangling link",
    "a link to itself",
    "a long name",
    "a long path",
    "a folder of the system",
]


@pytest.mark.parametrize("place", PLACES)
def test_results_that_cannot_be_stored_are_one_message(
    kpipe: Kpipe, declared: Path, tmp_path: Path, place: str
) -> None:
    root = roots(tmp_path)[place]
    refused(kpipe("run", declared, "--root", root), "error: ", "--root")


def test_a_preview_that_cannot_be_stored_is_one_message(
    kpipe: Kpipe, declared: Path, tmp_path: Path
) -> None:
    text = declared.read_text().replace("import Data", "import Augment, Data")
    declared.write_text(text.replace("image_size=32)", "image_size=32), Augment()"))
    root = roots(tmp_path)["a folder of the system"]
    refused(kpipe("preview", declared, "--root", root), "error: ", "--root")


@pytest.mark.parametrize("place", PLACES)
def test_a_plan_needs_no_folder(kpipe: Kpipe, declared: Path, tmp_path: Path, place: str) -> None:
    outcome = kpipe("plan", declared, "--root", roots(tmp_path)[place])
    assert outcome.returncode == 0, outcome
    assert "has no earlier result" in outcome.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("--root", "/proc/out"),
        ("--html", "/proc/a.html"),
        ("--fix", "/proc/a.csv"),
        ("--html", "file/a.html"),
    ],
)
def test_an_audit_that_cannot_be_written_is_one_message(
    kpipe: Kpipe, tmp_path: Path, words: tuple[str, str]
) -> None:
    draw(tmp_path / "photos")
    (tmp_path / "file").write_text("")
    refused(kpipe("check", "photos", *words), "cannot be written", words[0])


@pytest.mark.parametrize(
    ("command", "env"),
    [
        ("check", {"PYTHONIOENCODING": "latin-1"}),
        ("run", {"PYTHONIOENCODING": "ascii"}),
        ("plan", {"PYTHONIOENCODING": "cp1252"}),
        ("plan", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    ],
)
def test_a_terminal_of_another_encoding_shows_escapes(
    kpipe: Kpipe, declared: Path, tmp_path: Path, command: str, env: dict[str, str]
) -> None:
    (tmp_path / "photos" / "red").rename(tmp_path / "photos" / "赤")
    outcome = kpipe(command, "photos" if command == "check" else declared, **env)
    assert outcome.returncode == 0, outcome
    assert command == "plan" or "\\u8d64" in outcome.stdout


@pytest.mark.slow
def test_a_read_only_folder_is_planned_and_reported(
    kpipe: Kpipe, declared: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(out)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a file system is not permitted here")
    try:
        assert kpipe("run", declared, "--root", out).returncode == 0
        for photo in (tmp_path / "photos").rglob("*.png"):
            os.utime(photo, (0, 0))  # so that no cached digest is valid
        remount = ["mount", "-o", "remount,ro", str(out)]
        subprocess.run(remount, check=True, capture_output=True)
        outcome = kpipe("plan", declared, "--root", out)
        assert (outcome.returncode, "cached" in outcome.stdout) == (0, True), outcome
        outcome = kpipe("report", declared, "--root", out)
        assert outcome.returncode == 0, outcome
        (page,) = tmp_path.glob("report-photos-*.html")
        assert page.name in outcome.stdout
        refused(kpipe("run", declared, "--root", out), "cannot be written", "Read-only")
        assert kpipe("report", declared, "--root", out, "--html", "a/b.html").returncode == 0
        assert (tmp_path / "a" / "b.html").exists()
    finally:
        subprocess.run(["umount", str(out)], check=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_run_as_ctrl_c_does(tmp_path: Path, number: signal.Signals) -> None:
    file = tmp_path / "waiting.py"
    file.write_text(WAITING)
    process = subprocess.Popen(
        [*MAIN, "run", str(file)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts its background jobs, such as these tests, with signals ignored.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    assert process.stdout
    while "waits" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert "interrupted" in errors and f"to resume: kpipe run {file}" in errors
    assert number == signal.SIGINT or number.name in errors
    assert "Traceback" not in errors


def test_nohup_keeps_a_run_alive(tmp_path: Path) -> None:
    file = tmp_path / "waiting.py"
    file.write_text(WAITING.replace("sleep(60)", "sleep(1)"))
    process = subprocess.Popen(
        ["nohup", *MAIN, "run", str(file)], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    while "waits" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGHUP)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "results:" in output


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: draw(folder / "it"), ["a folder", "kpipe check it", "kpipe init it"]),
        (lambda folder: draw(folder / "it/train"), ["a folder", "kpipe check it"]),
        (
            lambda folder: [
                (folder / "it").mkdir(),
                (folder / "it/mine.py").write_text("pipeline = Pipeline('a', [])"),
            ],
            ["a folder of pipeline files", "kpipe run it/mine.py"],
        ),
        (
            lambda folder: [(folder / "it").mkdir(), (folder / "it/journal.jsonl").touch()],
            ["the folder of a run", "kpipe report it", "kpipe run it/pipeline.py"],
        ),
    ],
)
@pytest.mark.parametrize("command", ["run", "plan", "preview"])
def test_a_folder_in_place_of_a_file_names_the_command_that_was_meant(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make, words: list[str]
) -> None:
    from click.testing import CliRunner

    from kpipe.cli.entry import commands

    monkeypatch.chdir(tmp_path)
    make(tmp_path)
    error = str(CliRunner().invoke(commands, [command, "it"]).exception)
    for word in ("there is no pipeline file it", *words):
        assert word in error


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("m.tflite", ["a model", "kpipe predict m.tflite PHOTOS", "kpipe benchmark m.tflite"]),
        ("t.CSV", ["a table", "kpipe check t.CSV", 'Data("t.CSV", image=COLUMN, label=COLUMN)']),
        ("a b.jpg", ["a photo", "kpipe predict MODEL.tflite 'a b.jpg'"]),
        ("journal.jsonl", ["a journal", "kpipe report ."]),
    ],
)
def test_a_file_of_another_kind_names_the_command_that_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: list[str]
) -> None:
    from kpipe.cli import load_pipeline
    from kpipe.errors import PipelineError

    monkeypatch.chdir(tmp_path)
    Path(name).touch()
    with pytest.raises(PipelineError) as caught:
        load_pipeline(Path(name))
    for word in words:
        assert word in str(caught.value)


def test_a_misspelt_file_suggests_the_one_beside_it(tmp_path: Path) -> None:
    from kpipe.cli import load_pipeline
    from kpipe.errors import PipelineError

    (tmp_path / "clothing.py").touch()
    with pytest.raises(PipelineError, match=r"did you mean '.*clothing\.py'"):
        load_pipeline(tmp_path / "clohting.py")
    with pytest.raises(PipelineError, match="there is no pipeline file"):
        load_pipeline(tmp_path / ("n" * 300))
