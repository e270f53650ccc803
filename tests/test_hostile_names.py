"""Names with control characters: shown escaped, on the terminal, on pages and in tables."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from kpipe import cli
from kpipe.data import Manifest, from_csv, from_folder
from kpipe.data.manifest import problem_table
from kpipe.errors import DataError, ExportError
from kpipe.lite import Classifier, convert
from kpipe.report.charts import confusion_matrix
from kpipe.stages import Data
from tests.walking import draw

ESC, RTL = "\x1b[31m", "\u202e"
RAW = {*map(chr, range(32)), *map(chr, range(127, 160)), RTL, "\u2028"} - {"\n"}
DECLARATION = """
from kpipe import Pipeline
from kpipe.stages import Data
pipeline = Pipeline("p", [Data("photos", image_size=16)])
"""


@pytest.fixture
def kpipe(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)

    def command(*words) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["kpipe", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        return code, "".join(capfd.readouterr())

    return command


@pytest.fixture
def photos(tmp_path) -> Path:
    """Photos of `draw`, red named with ESC, with a file that is none and one under two labels."""
    folder = draw(tmp_path / "photos")
    (folder / "red").rename(folder / f"{ESC}red")
    (folder / f"{ESC}red" / f"{RTL}\n{ESC}.jpg").write_bytes(b"none")
    copied = (folder / "blue" / "00.png").read_bytes()
    (folder / "green" / f"=cmd{ESC}.png").write_bytes(copied)
    return folder


def test_a_check_shows_names_escaped(kpipe, photos):
    code, text = kpipe("check", "photos", "--fix", "fixed.csv")
    assert code == 1
    assert "\\x1b[31mred" in text
    page = Path("saved_models/check/photos/check.html").read_text()
    table = Path("saved_models/check/photos/check.csv").read_text()
    for shown in (text, page, table, Path("fixed.csv").read_text()):
        assert not RAW & set(shown)
    assert "\\u202e\\x0a\\x1b" in page


def test_a_fixed_table_with_escapes_finds_its_photos(kpipe, photos):
    kpipe("check", "photos", "--fix", "fixed.csv")
    manifest = from_csv("fixed.csv", image="path", label="label")
    assert any(ESC in path for path in manifest.table["path"])
    assert "missing file" not in set(manifest.problems["kind"])


def test_a_run_and_its_report_show_names_escaped(kpipe, photos):
    Path("p.py").write_text(DECLARATION)
    code, text = kpipe("run", "p.py")
    assert code == 0, text
    assert not RAW & set(text)
    (page,) = Path("saved_models/p").glob("*/report.html")
    assert not RAW & set(page.read_text())
    (folder,) = (path.parent for path in Path("saved_models/.cache").glob("*/problems.csv"))
    assert not RAW & set(
        (folder / "problems.csv").read_text() + (folder / "manifest.csv").read_text()
    )
    manifest = Manifest.load(folder)
    assert any(path.endswith(f"{RTL}\n{ESC}.jpg") for path in manifest.problems["path"])


def test_a_problem_is_never_a_formula(tmp_path):
    table = from_folder(draw(tmp_path / "photos")).table
    found = [("=1+1", "kind", "@SUM(1)"), ("a.jpg", "kind", "'=quoted'"), ("+1", "kind", "-2+3")]
    manifest = Manifest(table, ("blue", "green", "red"), problem_table(found))
    manifest.save(tmp_path / "saved")
    with (tmp_path / "saved" / "problems.csv").open(newline="") as file:
        cells = [text for row in csv.reader(file) for text in row]
    assert not {text[0] for text in cells} & set("=+-@")
    assert list(Manifest.load(tmp_path / "saved").problems.itertuples(index=False)) == found


def test_a_fixed_table_has_no_formula_and_the_same_classes(kpipe, photos):
    (photos / "blue").rename(photos / "=blue")
    kpipe("check", "photos", "--fix", "fixed.csv")
    with Path("fixed.csv").open(newline="") as file:
        assert not {text[:1] for row in csv.reader(file) for text in row} & set("=+-@")
    manifest = from_csv("fixed.csv", image="path", label="label")
    assert manifest.classes == ("\x1b[31mred", "=blue", "green")


UNUSABLE = ["new\nline", "back\rreturn", "separator\u2028line", "\ufeffmark"]


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_class_that_labels_txt_cannot_hold_is_refused_early(kpipe, tmp_path, name):
    folder = draw(tmp_path / "photos")
    (folder / "red").rename(folder / name)
    with pytest.raises(DataError, match="unusable class names"):
        from_folder(folder)
    Path("p.py").write_text(DECLARATION)
    code, text = kpipe("plan", "p.py")
    assert code == 2
    assert f"received: {name!r}" in text
    code, text = kpipe("check", "photos")
    assert code == 1
    assert "unusable class name" in text


def test_a_label_of_a_table_that_labels_txt_cannot_hold_is_refused_by_the_plan(kpipe, tmp_path):
    folder = draw(tmp_path / "photos")
    rows = [
        (f"photos/{path.parent.name}/{path.name}", path.parent.name)
        for path in folder.rglob("*.png")
    ]
    with open("list.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [("file", "kind"), *((path, f"{kind}\nx") for path, kind in rows)]
        )
    Path("p.py").write_text(
        DECLARATION.replace('"photos"', '"list.csv", image="file", label="kind"')
    )
    code, text = kpipe("plan", "p.py")
    assert code == 2
    assert r"'blue\nx', 'green\nx', 'red\nx'" in text


def test_a_declared_class_that_labels_txt_cannot_hold_is_refused_by_the_stage():
    (problem,) = Data(
        "a.csv", image="i", label="l", classes={"0": "a\nb", "1": "c"}
    ).validation_errors()
    assert r"'a\nb'" in problem


def test_labels_of_a_file_are_shown_escaped(kpipe, tmp_path):
    net = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Softmax()]
    )
    Path("model.tflite").write_bytes(convert(net))
    Path("labels.txt").write_text(f"{ESC}red\n{RTL}green\nblue\n")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(f"{ESC}.png")
    code, text = kpipe("predict", "model.tflite", f"{ESC}.png")
    assert code == 0
    assert "\\x1b[31m.png: " in text
    assert "\\u202egreen" in text
    assert not RAW & set(text)
    with pytest.raises(ExportError, match="more than once") as raised:
        Classifier("model.tflite", labels=[ESC, ESC, "blue"])
    assert not RAW & set(str(raised.value))


@pytest.mark.parametrize("name", [ESC, r"$\frac$", "$", "a" * 1000, "<b>"])
def test_a_chart_takes_any_class_name(name):
    svg = confusion_matrix([[1, 0], [0, 1]], [name, "b"])
    assert not RAW & set(svg) - {"\t"}
    assert "a" * 100 not in svg
