from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kpipe.data import Manifest, conversion_notes, from_folder
from kpipe.data.manifest import problem_table


@pytest.fixture
def manifest(photo: Callable[..., Path]) -> Manifest:
    """One photo of each kind that is changed on its way to the models, and some that are not."""
    exif = Image.Exif()
    exif[0x0112] = 8
    root = photo("a/plain.png").parents[1]
    pixels = Image.open(root / "a" / "plain.png")
    pixels.convert("L").save(root / "a" / "grey.png")
    pixels.convert("1").save(root / "a" / "one.png")
    pixels.save(root / "a" / "turned.jpg", exif=exif)
    pixels.convert("CMYK").save(root / "a" / "cmyk.jpg")
    pixels.convert("LA").save(root / "a" / "la.png")
    pixels.convert("RGBA").save(root / "a" / "rgba.png")
    pixels.convert("P").save(root / "a" / "palette.png")
    pixels.convert("P").save(root / "a" / "still.gif")
    deep = np.arange(1200, dtype=np.uint16).reshape(30, 40)
    Image.fromarray(deep).save(root / "a" / "deep.png")
    return from_folder(root, max_unreadable=None)


def test_each_conversion_is_told_by_path(manifest: Manifest) -> None:
    told = [
        (Path(path).name, kind, detail) for path, kind, detail in conversion_notes(manifest, "red")
    ]
    assert sorted(told) == [
        ("cmyk.jpg", "converted", "CMYK to RGB"),
        ("deep.png", "converted", "16 bits to 8"),
        ("la.png", "converted", "alpha, over red"),
        ("palette.png", "converted", "palette to RGB, what is transparent over red"),
        ("rgba.png", "converted", "alpha, over red"),
        ("still.gif", "converted", "palette to RGB, what is transparent over red"),
        ("turned.jpg", "turned upright", "EXIF orientation 8"),
    ]


def test_of_many_alike_the_number_is_told(manifest: Manifest) -> None:
    turned = manifest.table[manifest.table["orientation"] == 8]
    path = turned["path"].item()
    table = turned.loc[turned.index.repeat(250)].reset_index(drop=True)
    assert conversion_notes(Manifest(table, manifest.classes, problem_table())) == [
        ("", "turned upright", f"EXIF orientation 8: 250 photos, such as {path}")
    ]


def test_of_a_table_without_formats_nothing_is_told(manifest: Manifest) -> None:
    table = manifest.table.drop(columns=["format", "mode", "orientation", "similar"])
    assert conversion_notes(Manifest(table, manifest.classes, manifest.problems)) == []
