"""Photos without labels beside labelled ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kpipe.data import Manifest, from_folder, split
from kpipe.data.reading.scanning import ScanOptions
from kpipe.data.reading.unlabelled import unlabelled_photos
from kpipe.errors import DataError
from tests.walking import draw


@pytest.fixture
def labelled(tmp_path: Path) -> Manifest:
    return split(from_folder(draw(tmp_path / "photos")), (0.6, 0.2, 0.2))


@pytest.fixture
def more(tmp_path: Path) -> Path:
    """A folder of four new photos, at two depths."""
    generator = np.random.default_rng(7)
    for name in ("a.png", "deep/b.png", "deep/deeper/c.png", "deep/deeper/d.png"):
        path = tmp_path / "more" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (40, 48, 3)).astype(np.uint8)).save(path)
    return tmp_path / "more"


def read(more: Path, labelled: Manifest) -> Manifest:
    return unlabelled_photos(more, labelled, ScanOptions())


def of_split(labelled: Manifest, name: str) -> Path:
    return Path(labelled.table["path"].iloc[labelled.rows(name)[0]])


def kinds(manifest: Manifest) -> dict[str, str]:
    rows = manifest.problems.itertuples(index=False)
    return {Path(path).name: kind for path, kind, _ in rows}


def test_photos_of_any_depth_are_photos_to_train_on(more: Path, labelled: Manifest) -> None:
    found = read(more, labelled)
    names = [Path(path).name for path in found.table["path"]]
    assert sorted(names) == ["a.png", "b.png", "c.png", "d.png"]
    assert set(found.table["split"]) == {"train"} and found.problems.empty


def test_what_cannot_be_read_is_listed_as_by_an_audit(more: Path, labelled: Manifest) -> None:
    (more / "torn.png").write_bytes((more / "a.png").read_bytes()[:300])
    (more / "notes.txt").write_text("not a photo")
    (more / "empty.jpg").write_bytes(b"")
    shutil.copy(more / "a.png", more / "z.png")
    found = read(more, labelled)
    assert len(found.table) == 4
    assert kinds(found) == {
        "torn.png": "truncated",
        "notes.txt": "not an image",
        "empty.jpg": "empty file",
        "z.png": "exact duplicate",
    }


def test_test_photos_are_refused_by_their_bytes(more: Path, labelled: Manifest) -> None:
    photo = of_split(labelled, "test")
    shutil.copy(photo, more / "found.png")
    with pytest.raises(DataError, match=r"1 unlabelled photos of .*more are test photos") as caught:
        read(more, labelled)
    assert "found.png" in str(caught.value) and f"the same bytes as {photo}" in str(caught.value)


@pytest.mark.parametrize("name", ["test", "validation"])
def test_look_alikes_of_photos_that_are_held_out_are_found(
    more: Path, labelled: Manifest, name: str
) -> None:
    with Image.open(of_split(labelled, name)) as photo:
        photo.convert("RGB").save(more / "again.bmp")
    if name == "test":
        with pytest.raises(DataError, match="look like one") as caught:
            read(more, labelled)
        assert "again.bmp" in str(caught.value) and "looks like" in str(caught.value)
    else:
        found = read(more, labelled)
        assert kinds(found) == {"again.bmp": "unlabelled validation photo"}
        assert len(found.table) == 4


def test_training_photos_are_left_out(more: Path, labelled: Manifest) -> None:
    shutil.copy(of_split(labelled, "train"), more / "known.png")
    assert kinds(read(more, labelled)) == {"known.png": "unlabelled train photo"}


def test_a_folder_without_photos_is_refused(tmp_path: Path, labelled: Manifest) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="no unlabelled photos in") as caught:
        read(empty, labelled)
    assert "received: nothing" in str(caught.value)
    shutil.copy(of_split(labelled, "train"), empty / "known.png")
    with pytest.raises(DataError, match="1 x unlabelled train photo"):
        read(empty, labelled)
