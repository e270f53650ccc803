from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kpipe.data import decode, from_folder, load_image
from kpipe.errors import DataError
from kpipe.pixels import fit_photo


@pytest.mark.parametrize("size", [(30, 40), (64, 17), 7])
def test_a_loaded_photo_is_the_fitted_one(size: Any, photo: Callable[..., Path]) -> None:
    path = photo("a.png", size=(50, 33))
    loaded = load_image(path, size)
    with path.open("rb") as file:
        expected = fit_photo(file, ".png", size if isinstance(size, tuple) else (size, size))
    assert loaded.dtype == np.uint8
    np.testing.assert_array_equal(loaded, expected)


def test_transparent_pixels_show_the_background(folder: Path, tmp_path: Path) -> None:
    path = folder / "cat" / "00.png"
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(path)
    for background, color in (("white", [255] * 3), ("#102030", [16, 32, 48])):
        expected = np.full((8, 8, 3), color)
        np.testing.assert_array_equal(load_image(path, 8, background), expected)
        images = decode(from_folder(folder), 8, tmp_path / background, background=background)
        np.testing.assert_array_equal(images[0], expected)


def test_a_background_that_is_no_color_is_refused_before_any_work(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="did you mean 'white'"):
        load_image("none.png", 8, "wite")
    with pytest.raises(DataError, match="did you mean 'white'"):
        decode(from_folder(folder), 8, tmp_path / "out", background="wite")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [0, -1, (0, 4)])
def test_what_is_no_size_is_refused(size: object, photo: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="invalid image size"):
        load_image(photo("a.png"), size)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("no photo")
    for name in ("a.jpg", "gone.jpg"):
        with pytest.raises(DataError, match=f"{name} cannot be read"):
            load_image(tmp_path / name, 8)


def test_decoded_rows_are_the_loaded_photos(folder: Path, tmp_path: Path) -> None:
    manifest = from_folder(folder)
    calls: list[tuple[int, int]] = []
    images = decode(manifest, (9, 11), tmp_path / "out", lambda *call: calls.append(call))
    assert images.shape == (37, 9, 11, 3)
    assert images.dtype == np.uint8
    for path, image in zip(manifest.table["path"], images, strict=True):
        np.testing.assert_array_equal(image, load_image(path, (9, 11)))
    assert calls == [(done, 37) for done in range(1, 38)]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["images.npy"]
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "images.npy"), images)


def test_photos_changed_or_gone_since_are_all_named_and_nothing_is_left(
    folder: Path, photo: Callable[..., Path], tmp_path: Path
) -> None:
    manifest = from_folder(folder)
    photo("cat/03.png", seed=999)
    (folder / "dog" / "01.png").unlink()
    with pytest.raises(DataError, match="2 photos") as caught:
        decode(manifest, 8, tmp_path / "out")
    assert "03.png was changed" in str(caught.value)
    assert "01.png cannot be read" in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_settled_photos_are_not_hashed_again_and_changed_ones_are_noticed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kpipe.data.file_status._UNSETTLED_NS", -1)
    manifest = from_folder(folder)
    with monkeypatch.context() as patch:
        patch.setattr("hashlib.file_digest", lambda *_: pytest.fail("hashed again"))
        decode(manifest, 8, tmp_path / "out")
    path = folder / "cat" / "03.png"
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # in the checksum of the last chunk, which decoders ignore
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DataError, match=r"03\.png was changed"):
        decode(manifest, 8, tmp_path / "out")
    # A file that was only touched is hashed, and found unchanged.
    content[-1] ^= 1
    path.write_bytes(content)
    manifest = from_folder(folder)
    os.utime(folder / "dog" / "01.png")
    decode(manifest, 8, tmp_path / "out")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_a_clear_error_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".images.npy").symlink_to("/dev/full")
    with pytest.raises(DataError, match="cannot be written") as caught:
        decode(from_folder(folder), 100, tmp_path / "out")
    assert "No space left" in caught.value.received
    assert "1 MB" in caught.value.expected
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_is_a_file_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    for place in (tmp_path / "out", tmp_path / "out" / "below"):
        with pytest.raises(DataError, match="cannot be written"):
            decode(from_folder(folder), 8, place)
