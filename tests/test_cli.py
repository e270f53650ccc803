"""The command line: errors, output and results."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from kpipe import __version__, cli
from kpipe.cli import run as run_command
from kpipe.core.journal import read_journal
from kpipe.core.runner import run_folder
from tests.walking import draw

MAIN = "from kpipe.cli import main; main()"
PHOTOS = """
from kpipe import Pipeline
from kpipe.stages import Balance, Data

pipeline = Pipeline("photos", [Data({data}), Balance()], seed=1)
"""


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def kpipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    """`kpipe("run", file)`: the entry point in this process, its results under tmp_path/out."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def command(*words: object) -> Outcome:
        roots = ["--root", str(tmp_path / "out")] if words[0] in ("run", "plan") else []
        monkeypatch.setattr(sys, "argv", ["kpipe", *map(str, words), *roots])
        capfd.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return Outcome(code, *capfd.readouterr())

    return command


@pytest.fixture
def declared(tmp_path: Path) -> Callable[[str], Path]:
    """`declared(arguments of Data)`: a pipeline file of the stages that need no training."""

    def declare(data: str) -> Path:
        file = tmp_path / "photos.py"
        file.write_text(PHOTOS.format(data=data))
        return file

    return declare


def refused(outcome: Outcome, *words: str) -> None:
    """One clear message, exit code 2, and no traceback."""
    assert outcome.code == 2, outcome
    assert outcome.err.count("error:") == 1
    assert "Traceback" not in outcome.err + outcome.out
    for word in words:
        assert word in outcome.err


def published(root: Path) -> list[str]:
    """Names of finished results, and of what runs published."""
    own = {".lock", "journal.jsonl", "pipeline.py"}
    finished = [path.name for path in root.glob(".cache/*") if len(path.name) == 64]
    runs = [path for path in root.glob("[!.]*/*/*") if path.is_file()]
    return finished + [path.name for path in runs if path.name not in own]


# A declaration that cannot be carried out


@pytest.mark.parametrize("command", ["run", "plan", "report"])
def test_a_missing_pipeline_file_is_named(kpipe: Command, command: str, tmp_path: Path) -> None:
    refused(kpipe(command, "absent.py"), "there is no pipeline file absent.py", "expected")
    assert not (tmp_path / "out").exists()


def test_a_folder_is_not_a_pipeline_file(kpipe: Command, tmp_path: Path) -> None:
    refused(kpipe("run", tmp_path), "received: a folder")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stages = []\n", ["does not define `pipeline`", "no such name", "Pipeline(name"]),
        ("pipeline = [1]\n", ["does not define `pipeline`", "a list"]),
        ("a = 1\nb = (2\nc = = 3\n", [", line 2", "SyntaxError"]),
        ("a = 1\n\nb = undefined\n", [", line 3", "NameError", "undefined"]),
        ("import no_such_module_at_all\n", [", line 1", "no_such_module_at_all"]),
        ("\0", ["the pipeline file fails"]),
        (
            "from kpipe.stages import Dta\n",
            [", line 1", "Dta"],
        ),
        (
            "from kpipe.stages import FineTune\nFineTune('MobileNetV2', epoch=3)\n",
            ["FineTune has no field 'epoch'", "did you mean 'epochs'?"],
        ),
        (
            "from kpipe import Pipeline\nfrom kpipe.stages import Data, FineTune\n"
            "pipeline = Pipeline('p', [Data('x', image_size=1), FineTune('MobilNetV2')])\n",
            ["image_size=1", "'MobilNetV2'", "did you mean 'MobileNetV2'?"],
        ),
    ],
)
def test_a_file_that_declares_no_pipeline_is_refused(
    kpipe: Command, tmp_path: Path, text: str, words: list[str]
) -> None:
    file = tmp_path / "bad.py"
    file.write_text(text)
    refused(kpipe("run", file), *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("Dtaa.image_size=32", ["Dtaa", "did you mean 'Data'?"]),
        ("Data.imgae_size=32", ["imgae_size", "did you mean 'image_size'?"]),
        ("Data.image_size=big", ["'big'", "a whole number between 16 and 4096"]),
        ("Data.split=(0.5,0.5)", ["a tuple of 3"]),
        ("Data.split=(0.5,0.3,0.3)", ["add up to 1"]),
        ("Data.split=(0.8,0.2,0)", ["both excluded"]),
        ("Data.classes={[]: 1}", ["a dict"]),
        ("Balance.method=class_wieght", ["'class_weight'"]),
        ("image_size=32", ["stage.field=value"]),
        ("seed=--3", ["seed=NUMBER"]),
        ("seed=-3", ["seed=-3"]),
    ],
)
def test_an_invalid_setting_is_refused(
    kpipe: Command, declared, tmp_path: Path, setting: str, words: list[str]
) -> None:
    refused(kpipe("run", declared("'photos'"), "--set", setting), *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["rnu"], ["run"], ["run", "a.py", "--fresch"]])
def test_a_misspelt_command_is_refused_without_a_traceback(kpipe: Command, words) -> None:
    outcome = kpipe(*words)
    assert outcome.code == 2
    assert "Traceback" not in outcome.err


# Data that cannot be used


def test_a_missing_data_folder_is_named(kpipe: Command, declared, tmp_path: Path) -> None:
    outcome = kpipe("run", declared("'nowhere'"))
    refused(outcome, "Data reads nowhere", str(tmp_path / "nowhere"), "what to do")
    assert published(tmp_path / "out") == []


def test_an_empty_folder_is_refused(kpipe: Command, declared, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(kpipe("run", declared("'empty'")), "no images in", "empty")
    assert published(tmp_path / "out") == []


def test_a_class_with_one_image_is_named(kpipe: Command, declared, tmp_path: Path) -> None:
    draw(tmp_path / "photos", {"red": 1})
    refused(kpipe("run", declared("'photos'")), "one image only in class 'red'")
    assert published(tmp_path / "out") == []


def test_a_single_class_is_refused(kpipe: Command, declared, tmp_path: Path) -> None:
    draw(tmp_path / "photos", {"red": 0, "green": 0})
    refused(kpipe("run", declared("'photos'")), "a single class", "'blue' with 24 images")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("image='fiel', label='kind'", ["no column 'fiel'", "did you mean 'file'?"]),
        ("image='file', label='knid'", ["no column 'knid'", "did you mean 'kind'?"]),
        ("image='file'", ["a CSV needs both columns named"]),
        ("image='file', label='kind', csv={'label': 1}", ["label are fields of Data"]),
    ],
)
def test_a_csv_without_the_named_column_is_refused(
    kpipe: Command, declared, tmp_path: Path, columns: str, words: list[str]
) -> None:
    (tmp_path / "table.csv").write_text("file,kind\na.png,cat\nb.png,dog\n")
    refused(kpipe("run", declared(f"'table.csv', {columns}")), *words)
    assert published(tmp_path / "out") == []


def test_weights_that_are_not_there_are_named_before_anything_runs(
    kpipe: Command, tmp_path: Path
) -> None:
    draw(tmp_path / "photos")
    file = tmp_path / "weights.py"
    file.write_text(
        "from kpipe import Pipeline\nfrom kpipe.stages import Data, FineTune\n"
        "pipeline = Pipeline('p', [Data('photos'), FineTune('VGG16', weights='absent.h5')])\n"
    )
    refused(kpipe("run", file), "FineTune reads absent.h5", str(tmp_path / "absent.h5"))
    assert published(tmp_path / "out") == []


def test_an_unreadable_image_is_reported_by_path_and_the_run_completes(
    kpipe: Command, declared, tmp_path: Path
) -> None:
    draw(tmp_path / "photos")
    torn = tmp_path / "photos" / "red" / "torn.png"
    torn.write_bytes(b"\x89PNG\r\n\x1a\n torn")
    outcome = kpipe("run", declared("'photos', image_size=32"))
    assert outcome.code == 0, outcome
    assert str(torn) in outcome.out
    assert "60 photos" in outcome.out
    (page,) = (tmp_path / "out").glob("photos/*/report.html")
    assert str(torn) in page.read_text()


def test_too_many_unreadable_images_end_the_run(kpipe: Command, declared, tmp_path: Path) -> None:
    draw(tmp_path / "photos")
    torn = [tmp_path / "photos" / "red" / f"torn-{number}.jpg" for number in range(6)]
    for path in torn:
        path.write_bytes(b"")
    outcome = kpipe("run", declared("'photos', image_size=32"))
    refused(outcome, "6 of 66 photos", "at most 5%", *map(str, torn))
    assert published(tmp_path / "out") == []


# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """`small_disk(kilobytes)`: a real file system of that size; called again, it grows."""
    folder = tmp_path / "out"
    folder.mkdir()

    def sized(kilobytes: int) -> Path:
        size = f"size={kilobytes}k" + (",remount" if folder.is_mount() else "")
        command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("mounting a file system is not permitted here")
        return folder

    yield sized
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_while_storing_is_one_error_until_space_is_freed(
    kpipe: Command, declared, small_disk, tmp_path: Path
) -> None:
    draw(tmp_path / "photos")
    file = declared("'photos', image_size=128")
    small_disk(1000)
    refused(kpipe("run", file), "No space left on device", "to resume: kpipe run")
    assert published(tmp_path / "out") == []
    small_disk(20_000)
    assert kpipe("run", file).code == 0
    assert len(published(tmp_path / "out")) > 0


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_disk_that_is_full_from_the_start_is_one_error(
    kpipe: Command, declared, small_disk, tmp_path: Path, command: str
) -> None:
    draw(tmp_path / "photos")
    disk = small_disk(100)
    (disk / "filler").write_bytes(bytes(96 * 1024))
    refused(kpipe(command, declared("'photos'")), "the disk that holds", "is full")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("name", ["pipeline.py", "journal.jsonl", "report.html"])
def test_a_full_disk_is_one_error_for_every_file(
    kpipe: Command, declared, tmp_path: Path, name: str
) -> None:
    draw(tmp_path / "photos")
    file = declared("'photos', image_size=32")
    folder = run_folder(cli.load_pipeline(file), tmp_path / "out")
    folder.mkdir(parents=True)
    aside = {"report.html": ".report.html"}.get(name, name)
    (folder / aside).symlink_to("/dev/full")
    refused(kpipe("run", file), f"the disk that holds {tmp_path / 'out'} is full", "free some")


# What is said when it goes wrong


def test_a_failed_run_ends_with_the_command_that_resumes_it_on_one_line(
    kpipe: Command, declared, tmp_path: Path
) -> None:
    (tmp_path / "em pty").mkdir()
    far = "photos-in-a-folder-with-a-name-of-some-length"
    outcome = kpipe("run", declared(f"'{far}'"), "--fresh", "--set", "Data.source=em pty")
    (line,) = [line for line in outcome.err.splitlines() if "to resume" in line]
    expected = f"kpipe run {tmp_path / 'photos.py'} --set 'Data.source=em pty' --root"
    assert line == f"  to resume: {expected} {tmp_path / 'out'}"


def test_the_resume_command_is_only_given_for_a_run(kpipe: Command) -> None:
    assert "to resume" not in kpipe("plan", "absent.py").err


def test_an_interruption_ends_with_130_and_the_resume_command(
    kpipe: Command, declared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_command, "run_pipeline", interrupted)
    outcome = kpipe("run", declared("'photos'"))
    assert outcome.code == 130
    assert "interrupted" in outcome.err and "to resume" in outcome.err


def test_a_defect_ends_with_1_and_its_traceback(
    kpipe: Command, declared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a defect in [/kpipe]")

    monkeypatch.setattr(run_command, "run_pipeline", broken)
    outcome = kpipe("run", declared("'photos'"))
    assert outcome.code == 1
    assert "ZeroDivisionError: a defect in [/kpipe]" in outcome.err


# What it does


def test_the_version_is_that_of_the_package(kpipe: Command) -> None:
    assert kpipe("--version").out == f"kpipe, version {__version__}\n"


def test_a_second_run_reports_nothing_to_do_and_loads_nothing_heavy(walk) -> None:
    before = {path: path.read_bytes() for path in walk.folder.glob("*.tflite")}
    heavy = {"tensorflow", "keras", "pandas", "matplotlib"}
    check = f"{MAIN}; import sys; sys.exit(', '.join({heavy!r} & set(sys.modules)) or 0)"
    words = ["run", str(walk.file), "--root", str(walk.root)]
    for _ in range(2):  # the first of them writes the report
        done = subprocess.run(
            [sys.executable, "-c", check, *words], capture_output=True, text=True, check=False
        )
        assert "nothing to do" in done.stdout, done.stderr
    assert done.returncode == 0, done.stderr
    assert "by LiteRT" in done.stdout
    assert str(walk.folder / "report.html") in done.stdout
    assert {path: path.read_bytes() for path in walk.folder.glob("*.tflite")} == before
    assert walk.events[-1]["made"] == []


def test_the_plan_shows_each_status_and_its_reason(
    kpipe: Command, declared, tmp_path: Path
) -> None:
    draw(tmp_path / "photos")
    file = declared("'photos', image_size=32")
    told = kpipe("plan", file).out
    assert "has no earlier result" in told and "waits" in told and "for Data" in told
    assert kpipe("run", file).code == 0
    told = kpipe("plan", file).out
    assert told.count("cached") == 2
    told = kpipe("plan", file, "--set", "Data.image_size=48").out
    assert "image_size 32 -> 48" in told and "waits" in told
    (tmp_path / "photos" / "red" / "00.png").unlink()
    assert "the data changed" in kpipe("plan", file).out


def test_the_plan_shows_that_an_interrupted_stage_continues(
    kpipe: Command, declared, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    file = declared("'photos'")
    kpipe("run", file)  # refused: no images
    told = kpipe("plan", file).out
    assert "continues" in told and "was interrupted" in told


def test_a_path_that_looks_like_markup_is_printed_verbatim(
    kpipe: Command, declared, tmp_path: Path
) -> None:
    draw(tmp_path / "photos")
    draw(tmp_path / "a[/x]")
    file = declared("'photos', image_size=32")
    assert kpipe("run", file).code == 0
    told = kpipe("plan", file, "--set", "Data.source=a[/x]")
    assert told.code == 0 and "'a[/x]'" in told.out
    refused(kpipe("plan", file, "--set", "Data.source=b[/x]"), "b[/x]")


def test_fresh_makes_everything_again(kpipe: Command, declared, tmp_path: Path) -> None:
    draw(tmp_path / "photos")
    file = declared("'photos', image_size=32")
    for words, made in [((), 2), ((), 0), (("--fresh",), 2)]:
        assert kpipe("run", file, *words).code == 0
        (journal,) = (tmp_path / "out").glob("photos/*/journal.jsonl")
        assert len(read_journal(journal)[-1]["made"]) == made


@pytest.mark.slow
def test_a_damaged_result_warns_and_its_stage_runs_again(declared, tmp_path: Path) -> None:
    draw(tmp_path / "photos")
    command = [sys.executable, "-c", MAIN, "run", str(declared("'photos', image_size=32"))]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (images,) = (tmp_path / "saved_models/.cache").glob("*/images.npy")
    images.write_bytes(images.read_bytes()[:-1] + b"?")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "warning:" in done.stderr and "images.npy" in done.stderr
    assert "Data runs" in done.stdout and "Balance is cached" in done.stdout


def test_a_damaged_digest_cache_warns_and_is_rebuilt(declared, tmp_path: Path) -> None:
    draw(tmp_path / "photos")
    command = [sys.executable, "-c", MAIN, "run", str(declared("'photos', image_size=32"))]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "saved_models/.cache/digests.sqlite").write_bytes(b"no database " * 100)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "warning:" in done.stderr and "digests.sqlite" in done.stderr
    assert "nothing to do" in done.stdout


# report


@pytest.mark.parametrize("of", ["file", "folder"])
def test_the_report_is_written_from_the_file_or_the_folder(kpipe: Command, walk, of: str) -> None:
    page = walk.folder / "report.html"
    page.unlink(missing_ok=True)
    words = [walk.file, "--root", walk.root] if of == "file" else [walk.folder]
    outcome = kpipe("report", *words)
    assert outcome.code == 0, outcome
    assert str(page) in outcome.out
    assert "<svg" in page.read_text()


def test_a_report_of_no_run_is_refused(kpipe: Command, declared, tmp_path: Path) -> None:
    refused(kpipe("report", tmp_path), "holds no run", "kpipe run FILE")
    draw(tmp_path / "photos")
    refused(kpipe("report", declared("'photos'")), "holds no run")


# predict


def answer(walk, photo: Path) -> str:
    """The label that the file gives a photo, by LiteRT alone."""
    model = Interpreter(model_path=str(walk.folder / "model.tflite"))
    model.allocate_tensors()
    middle = Image.open(photo).crop((4, 0, 44, 40))
    extent = Image.Transform.EXTENT
    pixels = np.asarray(
        middle.transform((32, 32), extent, (0, 0, 40, 40), Image.Resampling.BILINEAR)
    )
    model.set_tensor(model.get_input_details()[0]["index"], pixels[None])
    model.invoke()
    best = model.get_tensor(model.get_output_details()[0]["index"]).argmax()
    return json.loads((walk.folder / "metrics.json").read_text())["classes"][best]


def test_predict_classifies_files_and_folders(kpipe: Command, walk) -> None:
    file, folder = walk.photos / "red" / "00.png", walk.photos / "blue"
    outcome = kpipe("predict", walk.folder / "model.tflite", file, folder, "--top", "2")
    assert outcome.code == 0, outcome
    lines = dict(line.split(": ") for line in outcome.out.splitlines())
    assert list(lines) == [str(file), *sorted(map(str, folder.iterdir()))]
    assert all(line.count("%") == 2 for line in lines.values())
    for path in (file, folder / "03.png"):
        assert lines[str(path)].split()[0] == answer(walk, path)


def test_predict_puts_the_background_under_transparent_pixels(
    kpipe: Command, walk, tmp_path: Path
) -> None:
    model = walk.folder / "model.tflite"
    Image.new("RGBA", (32, 32), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    told = []
    for color in ("blue", "#00ff00"):
        Image.new("RGB", (32, 32), color).save(tmp_path / "filled.png")
        clear = kpipe("predict", model, "clear.png", "--background", color)
        filled = kpipe("predict", model, "filled.png")
        assert clear.code == filled.code == 0
        told.append(clear.out.partition(": ")[2])
        assert told[-1] == filled.out.partition(": ")[2]
    assert told[0] != told[1]
    refused(kpipe("predict", model, "clear.png", "--background", "bleu"), "did you mean 'blue'?")


def test_predict_names_unreadable_files_and_classifies_the_rest(
    kpipe: Command, walk, tmp_path: Path
) -> None:
    torn, good = walk.photos / "red" / "torn.png", walk.photos / "red" / "00.png"
    model = walk.folder / "model.tflite"
    outcome = kpipe("predict", model, torn, good, "absent.png")
    refused(outcome, str(torn), "absent.png", "1 of 3 classified")
    assert outcome.out.startswith(f"{good}: ") and outcome.out.count("\n") == 1
    (tmp_path / "none").mkdir()
    refused(kpipe("predict", model, tmp_path / "none"), "no images in")


def test_benchmark_times_files_alternately_and_prints_ratios(kpipe: Command, walk) -> None:
    dense, final = walk.folder / "mobilenet-0-25.tflite", walk.folder / "model.tflite"
    outcome = kpipe("benchmark", dense, final, "--runs", "10")
    assert outcome.code == 0, outcome
    ratio = final.stat().st_size / dense.stat().st_size
    assert f"relative to {dense}: time" in outcome.out and f"size {ratio:.2f}" in outcome.out
    assert outcome.out.count("median") == 2 and "delegate partitions: 1" in outcome.out
    alone = kpipe("benchmark", dense, "--runs", "1")
    assert alone.code == 0 and "relative to" not in alone.out


def test_benchmark_refuses_a_file_that_is_not_a_model(kpipe: Command, tmp_path: Path) -> None:
    refused(kpipe("benchmark", "absent.tflite"), "absent.tflite")
    assert kpipe("benchmark").code == 2


def test_predict_refuses_a_file_that_is_not_a_model(kpipe: Command, tmp_path: Path) -> None:
    refused(kpipe("predict", "absent.tflite", "a.png"), "absent.tflite")
    (tmp_path / "half.tflite").write_bytes(b"TFL3" * 10)
    refused(kpipe("predict", "half.tflite", "a.png"), "half.tflite", "export the model again")
