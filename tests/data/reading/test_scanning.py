from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kpipe.data import from_dataframe, from_folder
from kpipe.data.image_info import THUMBNAIL, read_image_info, wrong_extension
from kpipe.data.reading import scanning
from kpipe.data.reading.lookup import Lookup
from kpipe.data.reading.scanning import ScanOptions, image_infos


def test_the_table_tells_format_mode_and_orientation(photo: Callable[..., Path]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo("a/1.png")
    photo("a/2.jpg", seed=1, exif=exif)
    path = photo("b/1.png", seed=2)
    Image.open(path).convert("P").save(path)
    table = from_folder(photo("b/2.bmp", seed=3).parents[1]).table.set_index("path")
    rows = {Path(name).parent.name + Path(name).name: row for name, row in table.iterrows()}
    columns = ["format", "mode", "orientation", "width", "height"]
    assert rows["a1.png"][columns].tolist() == ["PNG", "RGB", 1, 40, 30]
    assert rows["a2.jpg"][columns].tolist() == ["JPEG", "RGB", 6, 30, 40]
    assert rows["b1.png"][columns].tolist() == ["PNG", "P", 1, 40, 30]
    assert rows["b2.bmp"][columns].tolist() == ["BMP", "RGB", 1, 40, 30]
    assert (table["similar"] == table["sha256"]).all()


def test_a_photo_under_another_extension_is_told_and_kept(folder: Path) -> None:
    (folder / "cat" / "00.png").rename(folder / "cat" / "00.jpeg")
    manifest = from_folder(folder)
    assert len(manifest.table) == 37
    assert manifest.problems[["kind", "detail"]].to_numpy().tolist() == [
        ["wrong extension", "holds PNG"]
    ]


@pytest.mark.parametrize(
    ("name", "format", "lies"),
    [
        ("a.JPG", "JPEG", False),
        ("a.jpg", "MPO", False),
        ("a.png", "JPEG", True),
        ("a.heic", "JPEG", True),
        ("a", "JPEG", False),
        ("a.dat", "PNG", False),
        ("a.nef", "TIFF", False),
    ],
)
def test_only_names_that_promise_a_format_can_lie(name: str, format: str, lies: bool) -> None:
    assert bool(wrong_extension(name, format)) == lies


def test_an_audit_is_given_what_is_there(photo: Callable[..., Path]) -> None:
    path = photo("a/1.png")
    path.with_name("2.png").write_bytes(path.read_bytes()[:-400])
    photo("b/1.png", seed=1)
    manifest = from_folder(path.parents[1], max_unreadable=None)
    assert sorted(manifest.table["label"]) == ["a", "b"]
    assert manifest.problems["kind"].tolist() == ["truncated"]
    path.parent.joinpath("1.png").unlink()
    empty = from_folder(path.parents[1], max_unreadable=None)
    assert empty.classes == ("b",) and set(empty.problems["kind"]) >= {"class without images"}


def test_no_readable_photo_is_an_empty_manifest_for_an_audit(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").touch()
    manifest = from_folder(tmp_path, max_unreadable=None)
    assert manifest.table.empty and manifest.classes == ()


def test_image_info_describes_the_pixels(photo: Callable[..., Path]) -> None:
    path = photo("a/1.png", size=(64, 64))
    pixels = np.asarray(Image.open(path), float)
    info = read_image_info(str(path))
    channels = np.frombuffer(info.channels, np.float32)
    assert channels[:3] == pytest.approx(pixels.mean((0, 1)), abs=1e-3)
    assert channels[3:] == pytest.approx(pixels.std((0, 1)), abs=1e-3)
    thumbnail = np.frombuffer(info.thumbnail, np.uint8).reshape(THUMBNAIL, THUMBNAIL)
    assert (thumbnail == np.asarray(Image.open(path).convert("L"))).all()
    assert info.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


# Corners of a photo of 200 x 160 on grey of the size.
FRAMES = {
    "above and below": ((0, 40), (200, 240)),
    "below": ((0, 0), (200, 240)),
    "below, beside one side": ((30, 0), (230, 240)),
    "below, beside both sides": ((30, 0), (260, 240)),
    "all around": ((30, 40), (260, 240)),
}


@pytest.mark.parametrize("frame", FRAMES)
def test_grey_that_belongs_to_a_photo_is_no_damage(frame: str, tmp_path: Path) -> None:
    corner, size = FRAMES[frame]
    noise = np.random.default_rng(0).integers(0, 256, (160, 200, 3), np.uint8)
    framed = Image.new("RGB", size, (128, 128, 128))
    framed.paste(Image.fromarray(noise), corner)
    framed.save(tmp_path / "a.jpg")
    assert read_image_info(str(tmp_path / "a.jpg")).damage == ""


def test_progress_counts_every_file_once(folder: Path, tmp_path: Path) -> None:
    paths = sorted(map(str, folder.rglob("*.png")))
    steps: list[tuple[int, int]] = []
    table = pd.DataFrame({"path": paths, "sha256": ""})
    options = ScanOptions(cache=tmp_path / "photos.sqlite", progress=lambda *s: steps.append(s))
    infos = image_infos(table, options)
    assert steps == [(done, 37) for done in range(1, 38)]
    assert [one.sha256 for one in infos] == [read_image_info(path).sha256 for path in paths]


def test_rows_are_looked_up_by_content_wherever_they_lie(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = from_folder(folder, cache=tmp_path / "photos.sqlite")
    monkeypatch.setattr(
        "kpipe.data.reading.scanning.read_image_info", lambda *_, **__: pytest.fail("read again")
    )
    infos = image_infos(manifest.table, ScanOptions(cache=tmp_path / "photos.sqlite"))
    assert [info.sha256 for info in infos] == manifest.table["sha256"].tolist()


def test_a_file_in_many_rows_is_read_and_looked_up_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, looked, found = Counter[str](), Counter[str](), Counter[str]()

    def counted(
        counter: Counter[str], function: Callable[..., Any], place: int = 0
    ) -> Callable[..., Any]:
        def count(*values: Any, **named: Any) -> Any:
            counter[str(values[place])] += 1
            return function(*values, **named)

        return count

    monkeypatch.setattr(scanning, "read_image_info", counted(read, read_image_info))
    monkeypatch.setattr(scanning, "trusted_status", counted(looked, scanning.trusted_status))
    monkeypatch.setattr(Lookup, "find", counted(found, Lookup.find, 1))
    paths = sorted(folder.rglob("*.png"))
    rows = [(path, f"label {place}") for path in paths for place in (0, 0, 1, 2)]
    manifest = from_dataframe(pd.DataFrame(rows, columns=["file", "of"]), image="file", label="of")
    assert len(manifest.table) == 3 * len(paths)
    assert set(read.values()) == set(looked.values()) == set(found.values()) == {1}
    assert len(read) == len(looked) == len(found) == len(paths)
    calls = list[int]()
    infos = image_infos(manifest.table, ScanOptions(progress=lambda _, total: calls.append(total)))
    assert len(infos) == 3 * len(paths) and set(calls) == {len(paths)}
    assert set(read.values()) == {2}
