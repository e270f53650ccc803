"""Tables that are not one file and one label per photo: an error that says so."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from kpipe.data import from_csv, from_dataframe, split
from kpipe.errors import DataError

FILES = [f"{place}.png" for place in range(8)]
LABELS = list("abababab")
PLAIN = pd.DataFrame({"img": FILES, "lbl": LABELS})
SEVERAL = [["a"], ["b"], ["a", "b"], ["a"]] * 2


@pytest.fixture
def root(photo, tmp_path):
    for place, name in enumerate(FILES):
        photo(name, seed=place)
    return tmp_path / "photos"


CASES = {
    "lists": (PLAIN.assign(lbl=SEVERAL), "lbl", "8 of 8 cells of column 'lbl' hold several values"),
    "tuples": (PLAIN.assign(lbl=list(map(tuple, SEVERAL))), "lbl", "one label per photo"),
    "arrays": (PLAIN.assign(lbl=[np.array(one) for one in SEVERAL]), "lbl", "hold several values"),
    "a set": (PLAIN.assign(lbl=[*LABELS[1:], {"a", "b"}]), "lbl", "1 of 8 cells"),
    "files": (PLAIN.assign(img=[[name] for name in FILES]), "lbl", "column 'img' hold several"),
    "columns": (PLAIN.assign(dog=0), ["lbl", "dog"], r"'dog'\] is not the name of a column"),
    "duplicate label": (
        PLAIN.assign(more="z").set_axis(["img", "lbl", "lbl"], axis=1),
        "lbl",
        "more than one column 'lbl'",
    ),
    "duplicate other": (
        PLAIN.assign(x=0, y=0).set_axis(["img", "lbl", "x", "x"], axis=1),
        "lbl",
        "more than one column 'x'",
    ),
    "dict": (PLAIN.to_dict("list"), "lbl", "df is not a pandas DataFrame"),
    "series": (PLAIN["lbl"], "lbl", "received: a Series"),
    "nothing": (None, "lbl", "received: a NoneType"),
    "levels": (
        PLAIN.set_axis(pd.MultiIndex.from_tuples([("img", ""), ("lbl", "x")]), axis=1),
        "lbl",
        "levels of column names",
    ),
    "path": ("list.csv", "lbl", "from_csv"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_table_of_another_kind_is_refused(name, root):
    table, label, message = CASES[name]
    with pytest.raises(DataError, match=message):
        from_dataframe(table, image="img", label=label, root=root)


@pytest.mark.parametrize("kind", ["category", "string", object])
def test_labels_of_other_column_types_are_read(kind, root):
    made = from_dataframe(PLAIN.astype({"lbl": kind}), image="img", label="lbl", root=root)
    assert made.classes == ("a", "b")


@pytest.mark.parametrize(
    "values", [[1, 2], [1.5, 2.5], [True, False], pd.to_datetime(["2026", "2027"])]
)
def test_labels_that_are_no_text_are_read(values, root):
    table = PLAIN.assign(lbl=list(values) * 4)
    assert len(from_dataframe(table, image="img", label="lbl", root=root).classes) == 2


def test_duplicate_columns_of_a_file_are_refused(root):
    rows = [f"{name},{label},z" for name, label in zip(FILES, LABELS, strict=True)]
    (root / "list.csv").write_text("\n".join(["img,lbl,lbl", *rows]))
    with pytest.raises(DataError, match="more than one column 'lbl'"):
        from_csv(root / "list.csv", image="img", label="lbl")


def test_one_hot_columns_of_a_file_are_refused(root):
    (root / "list.csv").write_text("img,cat,dog\n0.png,1,0\n1.png,0,1\n")
    with pytest.raises(DataError, match="one label per photo"):
        from_csv(root / "list.csv", image="img", label=["cat", "dog"])


def test_a_long_cell_is_cut_in_the_message(root):
    table = PLAIN.assign(split=["x" * 10_000] * 8)
    with pytest.raises(DataError) as raised:
        from_dataframe(table, image="img", label="lbl", root=root)
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(
    "cells", [[str(place) for place in range(8)], [f"{p}.jpg" for p in range(8)]]
)
def test_a_name_without_its_extension_suggests_the_file(cells, root):
    with pytest.raises(DataError, match=r"did you mean 0\.png\?"):
        from_dataframe(PLAIN.assign(img=cells), image="img", label="lbl", root=root)


def test_photos_in_two_splits_are_named_when_no_class_is_left(root):
    table = pd.concat([PLAIN.assign(split="train"), PLAIN.assign(split="val")])
    made = from_dataframe(table, image="img", label="lbl", root=root)
    with pytest.raises(DataError, match=r"8 photos.* are in several splits") as raised:
        split(made, (0.6, 0.2, 0.2), 1)
    assert re.search(r"0\.png: set aside from train, kept in validation", raised.value.received)


def test_a_declared_split_without_a_class_says_how_to_go_on(root):
    table = PLAIN.assign(lbl=list("aaaabbbb"), split=["train", "train", "val", "test"] * 2)
    table.loc[7, "split"] = "train"
    made = from_dataframe(table, image="img", label="lbl", root=root)
    with pytest.raises(DataError, match="a declared split lacks a class") as raised:
        split(made)
    assert "let kpipe make the splits" in raised.value.fix
