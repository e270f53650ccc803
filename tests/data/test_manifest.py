from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from kpipe.data import Manifest, from_csv, from_folder
from kpipe.data.manifest import problem_table
from kpipe.errors import DataError

_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
_AWKWARD = ["a,b", 'say "hi"', "two\nlines", "back\rand\r\nforth", "Ünïcödé 犬", "NA", " pad ", "1"]


def _manifest(labels: list[str], paths: list[str] | None = None, **further) -> Manifest:
    table = pd.DataFrame(
        {
            "path": pd.Series(paths or [f"/p/{name}" for name in labels], dtype="str"),
            "label": pd.Series(labels, dtype="str"),
            "split": pd.Series([""] * len(labels), dtype="str"),
            "width": 4,
            "height": 3,
            "sha256": [f"{place:064x}" for place in range(len(labels))],
        }
    ).assign(**further)
    problems = problem_table([(f"/x/{name}", "truncated", name) for name in labels])
    return Manifest(table, tuple(sorted(set(labels))), problems)


def _same(one: Manifest, other: Manifest) -> None:
    pd.testing.assert_frame_equal(one.table, other.table)
    pd.testing.assert_frame_equal(one.problems, other.problems)
    assert one.classes == other.classes
    assert one.digest == other.digest


def test_awkward_names_survive_saving(tmp_path: Path) -> None:
    made = _manifest(_AWKWARD, patient=pd.Series(_AWKWARD[::-1], dtype="str"))
    made.save(tmp_path / "new" / "folder")
    _same(Manifest.load(tmp_path / "new" / "folder"), made)


@given(st.lists(_TEXT, min_size=1, max_size=5))
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_names_survive_saving(tmp_path: Path, names: list[str]) -> None:
    made = _manifest(names)
    made.save(tmp_path)
    _same(Manifest.load(tmp_path), made)


def test_no_text_of_a_saved_manifest_is_a_formula(tmp_path: Path) -> None:
    labels = ['=HYPERLINK("http://x")', "'=quoted", "@SUM(1)", "+1", "-2+3", "-2", "plain"]
    columns = {"=1+1": pd.Series(labels[::-1], dtype="str")}
    made = _manifest(labels, **columns)
    made.save(tmp_path)
    _same(Manifest.load(tmp_path), made)
    with (tmp_path / "manifest.csv").open(newline="") as file:
        cells = {text for row in csv.reader(file) for text in row}
    assert {text for text in cells if text[:1] in set("=+-@")} == {"-2"}


def test_a_saved_manifest_is_a_table_of_the_same_classes(tmp_path: Path) -> None:
    names = [
        "=red",
        "@green",
        "'=quoted",
        "'plain'",
        "\x1b[31mred",
        r"a\x1b",
        r"C:\x41",
        "-2",
        "+1",
    ]
    for place, name in enumerate(names):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(2):
            color = (20 * place, 90 * number, 0)
            Image.new("RGB", (20, 20), color).save(tmp_path / "photos" / name / f"{number}.png")
    made = from_folder(tmp_path / "photos")
    further = made.table.assign(place=made.table["label"])
    Manifest(further, made.classes, made.problems).save(tmp_path)
    again = from_csv(tmp_path / "manifest.csv", image="path", label="label")
    assert again.classes == made.classes
    for column in ("label", "place"):
        assert again.table[column].tolist() == made.table["label"].tolist()
    some = {name: "formula" if name[0] in "=@+" else "other" for name in names}
    mapped = from_csv(tmp_path / "manifest.csv", image="path", label="label", classes=some)
    assert mapped.table["label"].tolist() == [some[name] for name in made.table["label"]]
    written = {"'=red": "red", "@green": "green"}  # as a text editor shows them, or as they are
    some_rows = from_csv(tmp_path / "manifest.csv", image="path", label="label", classes=written)
    assert some_rows.classes == ("green", "red")


def test_a_saved_manifest_without_formulas_is_plain_text(tmp_path: Path) -> None:
    made = _manifest(["a", "b"], longitude=["-70.25", "2"], size=[-1, 2])
    made.save(tmp_path)
    assert (tmp_path / "manifest.csv").read_text() == made.table.to_csv(
        index=False, quoting=csv.QUOTE_ALL
    )


def test_further_columns_of_any_kind_are_saved_as_text(tmp_path: Path) -> None:
    made = _manifest(
        ["a", "b"],
        blurred=[True, False],
        day=pd.to_datetime(["2024-01-31", "2024-02-29"]),
        place=["\x1b[31m", np.nan],
        mixed=["x", 1],
        score=[0.5, np.nan],
        kind=pd.Categorical(["x", "y"]),
        boxes=[[1, 2], []],
    )
    made = Manifest(
        made.table.assign(**{"7": 1}).rename(columns={"7": 7}), ("a", "b"), made.problems
    )
    made.save(tmp_path)
    loaded = Manifest.load(tmp_path)
    assert loaded.digest == made.digest
    assert loaded.table.iloc[:, 6:].to_dict("list") == {
        "blurred": ["True", "False"],
        "day": ["2024-01-31", "2024-02-29"],
        "place": ["\x1b[31m", ""],
        "mixed": ["x", "1"],
        "score": ["0.5", ""],
        "kind": ["x", "y"],
        "boxes": ["[1, 2]", "[]"],
        "7": ["1", "1"],
    }


def test_no_problems_survive_saving(tmp_path: Path) -> None:
    made = Manifest(_manifest(["a"]).table, ("a",), problem_table())
    made.save(tmp_path)
    _same(Manifest.load(tmp_path), made)


def test_digest_ignores_paths_and_row_order() -> None:
    made = _manifest(["a", "b", "c"])
    moved = made.table.assign(path=["/q/1", "/q/2", "/q/3"])
    shuffled = moved.iloc[[2, 0, 1]].reset_index(drop=True)
    assert Manifest(shuffled, made.classes, problem_table()).digest == made.digest


@pytest.mark.parametrize(
    ("column", "value"), [("label", "b"), ("split", "test"), ("sha256", "f" * 64)]
)
def test_digest_follows_content_label_and_split(column: str, value: str) -> None:
    made = _manifest(["a", "b", "c"])
    table = made.table.copy()
    table.loc[0, column] = value
    assert Manifest(table, made.classes, problem_table()).digest != made.digest


def test_a_table_changed_after_saving_is_refused(tmp_path: Path) -> None:
    _manifest(["a", "b"]).save(tmp_path)
    text = (tmp_path / "manifest.csv").read_text()
    (tmp_path / "manifest.csv").write_text(text.replace(f"{0:064x}", "f" * 64))
    with pytest.raises(DataError, match="changed after it was saved"):
        Manifest.load(tmp_path)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no manifest can be read"):
        Manifest.load(tmp_path)


def test_labels_are_places_in_classes_in_row_order() -> None:
    made = _manifest(["b", "c", "a", "b"])
    table = made.table.assign(split=["train", "test", "train", "train"])
    made = Manifest(table, made.classes, problem_table())
    np.testing.assert_array_equal(made.labels("train"), [1, 0, 1])
    np.testing.assert_array_equal(made.rows("train"), [0, 2, 3])
    assert made.labels("test").dtype == np.int32


def test_counts_have_every_class_and_split() -> None:
    made = _manifest(["b", "c", "a", "b"])
    table = made.table.assign(split=["train", "test", "train", "train"])
    counts = Manifest(table, made.classes, problem_table()).counts()
    assert counts.loc["b"].to_dict() == {"train": 2, "validation": 0, "test": 0}
    assert made.counts().loc["b"].to_dict() == {"train": 0, "validation": 0, "test": 0, "": 2}


def test_an_unknown_or_empty_split_is_refused() -> None:
    made = _manifest(["a", "b"])
    with pytest.raises(DataError, match="did you mean 'validation'"):
        made.labels("validaton")
    with pytest.raises(DataError, match="train split is empty"):
        made.labels("train")


def test_strange_columns_labels_and_splits_are_named() -> None:
    table = _manifest(["a", "b"]).table
    with pytest.raises(DataError, match="'path', 'sha256'"):
        Manifest(table.drop(columns=["path", "sha256"]), ("a", "b"), problem_table())
    with pytest.raises(DataError, match="label 'b'"):
        Manifest(table, ("a",), problem_table())
    with pytest.raises(DataError, match="split 'val'"):
        Manifest(table.assign(split="val"), ("a", "b"), problem_table())
