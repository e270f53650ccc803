"""Small photo sets on disk, made anew for each test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kpipe.data import Manifest
from kpipe.data.manifest import problem_table

Write = Callable[..., Path]


@pytest.fixture
def photo(tmp_path: Path) -> Write:
    """`photo("class/name.png", seed=0, size=(40, 30))` writes random pixels, size as (w, h)."""

    def write(name: str, seed: int = 0, size: tuple[int, int] = (40, 30), **options) -> Path:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(path, **options)
        return path

    return write


@pytest.fixture
def folder(photo: Write, tmp_path: Path) -> Path:
    """20 cats, 10 dogs, 7 owls."""
    seed = 0
    for name, count in {"cat": 20, "dog": 10, "owl": 7}.items():
        for place in range(count):
            photo(f"{name}/{place:02}.png", seed=seed)
            seed += 1
    return tmp_path / "photos"


@pytest.fixture
def listed() -> Callable[..., Manifest]:
    """`listed([(sha256, label, split), ...], column=[...])`: a manifest without files."""

    def make(rows: list[tuple[str, str, str]], **further: list[str]) -> Manifest:
        table = pd.DataFrame(rows, columns=["sha256", "label", "split"])
        table["path"] = [f"/photos/{place}.jpg" for place in range(len(rows))]
        table[["width", "height"]] = 10
        table = table.assign(**further)
        classes = tuple(sorted({label for _, label, _ in rows}))
        return Manifest(table, classes, problem_table())

    return make
