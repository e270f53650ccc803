"""Examples in docstrings run as tests: each in a folder of its own that holds `photos/`.

`photos/blue`, `photos/green` and `photos/red` hold 24, 20 and 16 small noisy photos.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.walking import draw


@pytest.fixture(scope="session")
def _drawn_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("doctest") / "photos")


@pytest.fixture(autouse=True)
def _example_folder(request: pytest.FixtureRequest) -> None:
    if isinstance(request.node, pytest.DoctestItem):
        folder = request.getfixturevalue("tmp_path")
        (folder / "photos").symlink_to(request.getfixturevalue("_drawn_photos"))
        request.getfixturevalue("monkeypatch").chdir(folder)
