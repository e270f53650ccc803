"""Wrong values: numbers, names, paths, tables and labels."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.wrong_arguments.things import PHOTOS, Things

__all__ = [
    "Values",
    "classes",
    "color",
    "count",
    "flag",
    "fraction",
    "labels",
    "manifest",
    "mapping",
    "name",
    "names",
    "new_folder",
    "number",
    "path",
    "seed",
    "size",
    "table",
    "text",
]

Values = dict[str, Any]


def fraction(things: Things) -> Values:
    return number(things) | {"1": 1, "1.5": 1.5, "50": 50}


def number(things: Things) -> Values:
    return {
        "0": 0,
        "-1": -1,
        "NaN": math.nan,
        "infinity": math.inf,
        "None": None,
        "text": "0.5",
        "list": [0.5],
        "huge": 1e300,
    }


def count(things: Things) -> Values:
    return {"0": 0, "-1": -1, "1.5": 1.5, "NaN": math.nan, "None": None, "text": "3", "list": [2]}


def seed(things: Things) -> Values:
    return {"-1": -1, "1.5": 1.5, "None": None, "text": "3", "2**64": 2**64}


def flag(things: Things) -> Values:
    return {"None": None, "text": "yes", "2": 2}


def name(things: Things) -> Values:
    return {"misspelt": "adamm", "empty": "", "None": None, "3": 3, "list": ["adam"], "dict": {}}


def names(things: Things) -> Values:
    return {
        "text": "conv",
        "unknown": ["cnov"],
        "empty": [],
        "None": None,
        "numbers": [1, 2, 3],
        "3": 3,
        "repeated": ["a", "a", "b"],
        "line break": ["a", "b\nc", "d"],
    }


def text(things: Things) -> Values:
    return {"None": None, "3": 3, "list": ["a"], "NUL": "a\0b", "surrogate": "a\ud800"}


def color(things: Things) -> Values:
    return name(things) | {"tuple": (1, 2, 3), "#12": "#12"}


def path(things: Things) -> Values:
    Path("text.txt").write_text("no such thing\n")
    Path("empty").write_bytes(b"")
    Path("binary").write_bytes(bytes(range(256)) * 4)
    Path("folder").mkdir(exist_ok=True)
    return {
        "missing": "no/such/file",
        "missing Path": Path("no/such/file.tflite"),
        "folder": Path("folder").absolute(),
        "text file": "text.txt",
        "empty file": Path("empty"),
        "binary file": Path("binary"),
        "no name": "",
        "None": None,
        "3": 3,
        "bytes": b"photos",
        "NUL": "a\0b",
        "list": [],
        "a photo": str(things.photo),
        "too long": "a" * 300,
    }


def new_folder(things: Things) -> Values:
    """A folder to write to, or a file; `write_text` and others name it in their OSError."""
    Path("text.txt").write_text("no such thing\n")
    return {
        "text": "new",
        "Path": Path("new"),
        "file": "text.txt",
        "below a file": Path("text.txt/new"),
        "None": None,
        "3": 3,
        "bytes": b"new",
        "NUL": "a\0b",
        "too long": "a" * 300,
    }


def size(things: Things) -> Values:
    return count(things) | {
        "pair": (8, 9),
        "zeros": (0, 0),
        "three": (8, 8, 3),
        "fractions": (8.5, 8.5),
        "one": (8,),
    }


def manifest(things: Things) -> Values:
    return {
        "path": str(things.photos),
        "table": things.table,
        "no photos": things.no_photos,
        "not split": things.unsplit,
        "None": None,
        "list": [],
    }


def table(things: Things) -> Values:
    given = things.table
    return {
        "None": None,
        "path": "photos.csv",
        "dict": given.to_dict("list"),
        "series": given["file"],
        "array": given.to_numpy(),
        "list": given.to_dict("records"),
        "no rows": given.iloc[:0],
        "no columns": pd.DataFrame(),
        "duplicate index": given.set_axis([0] * PHOTOS),
        "duplicate column": pd.concat([given, given["kind"]], axis=1),
        "numbers": pd.DataFrame({"file": range(PHOTOS), "kind": np.arange(PHOTOS) / 7}),
        "NaN": pd.DataFrame({"file": [math.nan] * 3, "kind": [math.nan] * 3}),
        "bytes": given.assign(file=[file.encode() for file in given["file"]]),
        "lists": given.assign(kind=[[kind] for kind in given["kind"]]),
        "dates": given.assign(kind=pd.Timestamp("2026-01-01")),
        "categories": given.astype("category"),
        "objects": given.assign(kind=[object() for _ in range(PHOTOS)]),
        "arrays": given.assign(file=[np.zeros((2, 2)) for _ in range(PHOTOS)]),
        "levels": pd.concat({"x": given}, axis=1),
        "split": given.assign(split="everything"),
        "path column": given.assign(path="x", label="y", width="z"),
    }


def mapping(things: Things) -> Values:
    return {
        "list": [1.0, 2.0, 3.0],
        "text": "abc",
        "3": 3,
        "names": {"a": 1.0},
        "negative": {0: -1.0},
        "NaN": {0: math.nan},
        "unknown index": {7: 1.0},
        "text weight": {0: "1"},
        "None weight": {0: None},
        "empty": {},
    }


def classes(things: Things) -> Values:
    return {"list": ["a", "b"], "3": 3, "empty": {}, "unknown": {"zebra": "a"}, "None": {None: "a"}}


def labels(things: Things) -> Values:
    return {
        "None": None,
        "empty": [],
        "text": ["a", "b"],
        "one text": "abc",
        "fractions": [0.5, 1.5],
        "negative": [-1, 0, 1],
        "NaN": [math.nan, 0.0],
        "one-hot": np.eye(3),
        "a class missing": [0, 2],
        "huge": [0, 10**15],
        "objects": np.array([0, None], object),
        "number": 3,
        "ragged": [[0], [1, 2]],
    }
