"""The check command: findings, output, and the files it writes or leaves alone."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from kpipe import cli
from kpipe.data import from_csv
from tests.walking import draw

MAIN = "from kpipe.cli import main; main()"
HEAVY = ("tensorflow", "keras", "matplotlib", "sklearn")


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    """`check("photos")`: the command in this process, its results under tmp_path/saved_models."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def command(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["kpipe", "check", *map(str, words)])
        capfd.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return Outcome(code, *capfd.readouterr())

    return command


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photos without problems."""
    return draw(tmp_path / "photos")


@pytest.fixture
def dirty(photos: Path) -> Path:
    """Photos with known problems."""
    red = photos / "red"
    shutil.copy(red / "00.png", red / "00 copy.png")
    shutil.copy(red / "01.png", photos / "blue" / "red one.png")
    (red / "empty.jpg").touch()
    Image.open(red / "02.png").save(red / "02.jpg", "PNG", compress_level=1)
    shutil.copytree(photos / "green", photos / "Green ")
    (photos / "Green " / "00.png").unlink()
    for path in (photos / "Green ").iterdir():
        Image.open(path).rotate(180).save(path)
    (photos / "README.md").write_text("about")
    return photos


def contents(folder: Path) -> dict[Path, str]:
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def listed(page: Path) -> dict[str, set[str]]:
    """Names by kind, from the table beside the page."""
    table = pd.read_csv(page.with_suffix(".csv"), keep_default_na=False)
    names = table["path"].map(lambda path: Path(path).name)
    return names.groupby(table["kind"]).agg(set).to_dict()


PAGE = Path("saved_models/check/photos/check.html")


def test_clean_photos_end_with_0_and_a_page(check: Command, photos: Path) -> None:
    outcome = check(photos)
    assert outcome.code == 0, outcome
    assert "60 photos: no serious findings" in outcome.out
    assert "3 classes, the largest 1.5 times the smallest" in outcome.out
    assert (
        "40.0%" in outcome.out and "width, minimum / median / maximum: 48 / 48 / 48" in outcome.out
    )
    assert str(PAGE) in outcome.out
    assert "No findings." in PAGE.read_text(encoding="utf-8")
    assert listed(PAGE) == {}


def test_problems_end_with_1_and_are_listed_by_kind(check: Command, dirty: Path) -> None:
    outcome = check(dirty)
    assert outcome.code == 1, outcome
    assert listed(PAGE) == {
        "empty file": {"empty.jpg"},
        "exact duplicate": {"00.png"},
        "near duplicate": {"02.png"},
        "same photo, two labels": {"01.png", "red one.png"},
        "label spelling": {""},
        "wrong extension": {"02.jpg"},
        "outside a class folder": {"README.md"},
    }
    for kind in listed(PAGE):
        assert kind in outcome.out
    assert "'Green ' (19 photos) is 'green' (20)" in outcome.out
    assert "6 serious findings of 5 kinds" in outcome.out


def test_only_serious_findings_change_the_exit_code(check: Command, photos: Path) -> None:
    (photos / "red" / ".hidden.png").write_bytes(b"")
    (photos / "red" / "notes.txt").write_text("no photo")
    Image.open(photos / "red" / "00.png").convert("CMYK").save(photos / "red" / "print.tif")
    outcome = check(photos)
    assert outcome.code == 0, outcome
    assert {"hidden", "not an image", "converted"} <= listed(PAGE).keys()


def test_no_file_of_the_data_is_changed(check: Command, dirty: Path, tmp_path: Path) -> None:
    before = contents(dirty)
    check(dirty, "--fix", "clean.csv")
    assert contents(dirty) == before


def test_a_fixed_table_reads_back_clean(check: Command, dirty: Path, tmp_path: Path) -> None:
    outcome = check(dirty, "--fix", "new/clean.csv")
    assert outcome.code == 1
    made = from_csv("new/clean.csv", image="path", label="label")
    assert made.classes == ("blue", "green", "red")
    # Left out: an empty file, a copy, a photo under two labels twice.
    assert made.counts().sum(axis=1).to_dict() == {"blue": 24, "green": 39, "red": 16}
    assert "79 photos, 23 changes" in outcome.out
    assert "label 'Green ' becomes 'green'" in outcome.out and "and 13 more" in outcome.out
    again = check("new/clean.csv", "--html", "again.html")
    # What only the owner of the files can mend stays.
    assert again.code == 1, again
    left = {"near duplicate", "file without a row", "wrong extension"}
    assert listed(Path("again.html")).keys() == left
    assert "Changes that <code>--fix</code> makes" in PAGE.read_text(encoding="utf-8")


def test_a_fixed_table_never_overwrites_a_file(check: Command, dirty: Path) -> None:
    table = Path("mine.csv")
    table.write_text("my own")
    outcome = check(dirty, "--fix", table)
    assert outcome.code == 2
    assert "mine.csv already exists" in outcome.err and "remove it first" in outcome.err
    assert table.read_text() == "my own" and not PAGE.exists()


def test_a_fixed_table_keeps_the_declared_splits(check: Command, photos: Path) -> None:
    for split in ("train", "test"):
        for name in ("blue", "red"):
            (photos.parent / "split" / split / name).mkdir(parents=True)
    for number, path in enumerate(sorted((photos / "blue").iterdir())):
        split = "test" if number % 4 == 0 else "train"
        shutil.copy(path, photos.parent / "split" / split / "blue")
    for number, path in enumerate(sorted((photos / "red").iterdir())):
        split = "test" if number % 4 == 0 else "train"
        shutil.copy(path, photos.parent / "split" / split / "red")
    shutil.copy(photos / "blue" / "00.png", photos.parent / "split" / "train" / "blue")
    outcome = check("split", "--fix", "clean.csv")
    assert outcome.code == 1
    page = Path("saved_models/check/split/check.html")
    assert listed(page)["duplicates cross splits"] == {"00.png"}
    made = from_csv("clean.csv", image="path", label="label")
    assert made.counts().to_numpy().tolist() == [[18, 0, 6], [12, 0, 4]]


# What may be looked through


def test_a_table_is_audited_by_its_columns(check: Command, photos: Path) -> None:
    rows = [f"{path.relative_to(photos)};{path.parent.name}" for path in photos.rglob("*.png")]
    Path("list.csv").write_text("\n".join(["file;kind", *rows[1:], "gone.png;red"]))
    outcome = check("list.csv", "--image", "file", "--label", "kind", "--photos", photos)
    assert outcome.code == 1, outcome
    found = listed(Path("saved_models/check/list/check.html"))
    assert found == {
        "missing file": {"gone.png"},
        "file without a row": {Path(rows[0].partition(";")[0]).name},
    }


def test_options_of_a_table_are_passed_on(check: Command, photos: Path) -> None:
    rows = [f"{path} {path.parent.name}" for path in sorted(photos.rglob("*.png"))]
    Path("list.csv").write_text("\n".join(rows))
    words = ("--csv", "sep= ", "--csv", "names=['file', 'kind']")
    outcome = check("list.csv", "--image", "file", "--label", "kind", *words)
    assert outcome.code == 0, outcome
    assert "60 photos" in outcome.out


def test_several_folders_are_audited_as_one(check: Command, photos: Path) -> None:
    shutil.copytree(photos, "other")
    outcome = check(photos, "other")
    assert outcome.code == 1
    assert "120 photos" in outcome.out and "60 serious findings" in outcome.out


def test_the_data_of_a_pipeline_is_audited(check: Command, photos: Path) -> None:
    Path("pipe.py").write_text(
        "from kpipe import Pipeline\nfrom kpipe.stages import Data\n"
        "pipeline = Pipeline('mine', [Data('nowhere')])\n"
    )
    outcome = check("pipe.py", "--set", f"Data.source={photos}")
    assert outcome.code == 0, outcome
    assert Path("saved_models/check/mine/check.html").exists()
    refused = check("pipe.py", "--image", "file")
    assert refused.code == 2 and "change them with --set" in refused.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "photos", "nothing"], "no such file or folder: nowhere, nothing"),
        (["list.csv"], "name the columns"),
        (["list.csv", "--image", "file"], "both columns named"),
        (["list.csv", "--image", "fiel", "--label", "kind"], "did you mean 'file'?"),
        (["photos", "--set", "Data.image_size=32"], "--set is for pipeline files"),
        (["list.csv", "--image", "file", "--label", "kind", "--csv", "colour=red"], "colour"),
        ([], "Missing argument"),
    ],
)
def test_invalid_arguments_end_with_2(
    check: Command, photos: Path, words: list[str], message: str
) -> None:
    Path("list.csv").write_text("file,kind\nphotos/red/00.png,red\n")
    outcome = check(*words)
    assert outcome.code == 2, outcome
    assert message in outcome.err and "Traceback" not in outcome.err


def test_a_folder_without_photos_is_audited_too(check: Command, tmp_path: Path) -> None:
    (tmp_path / "photos" / "red").mkdir(parents=True)
    (tmp_path / "photos" / "red" / "empty.jpg").touch()
    outcome = check("photos")
    assert outcome.code == 1, outcome
    assert listed(PAGE) == {"empty file": {"empty.jpg"}, "class without images": {""}}


# What it costs


def test_nothing_heavy_is_loaded(photos: Path, tmp_path: Path) -> None:
    code = f"{MAIN}; import sys; sys.exit(', '.join({set(HEAVY)!r} & set(sys.modules)) or 0)"
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code, "check", str(photos)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_a_second_check_reads_no_photo_again(
    check: Command, dirty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kpipe.data.file_status._UNSETTLED_NS", -1)
    first, text = check(dirty), PAGE.read_text(encoding="utf-8")
    monkeypatch.setattr("kpipe.data.image_info.read_photo", None)
    second = check(dirty)
    assert (second.code, second.out) == (first.code, first.out)
    assert PAGE.read_text(encoding="utf-8") == text
