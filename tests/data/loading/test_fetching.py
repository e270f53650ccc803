from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image

from kpipe.crop_window import window
from kpipe.data import Manifest, decode, load_image
from kpipe.data.loading import fetching as fetching_module
from kpipe.data.loading.decoding import load_unchanged
from kpipe.data.loading.fetching import Fetch, fetch_decoded, fetch_files
from kpipe.data.manifest import problem_table
from kpipe.errors import DataError
from kpipe.pixels import read_photo

Write = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Write:
    """`save("a.jpg", (width, height), mode="RGB", orientation=1, ...)` a blurred noise."""

    def write(
        name: str, size: tuple[int, int], mode: str = "RGB", orientation: int = 1, **options: Any
    ) -> Path:
        coarse = (size[1] // 3 + 1, size[0] // 3 + 1, 3)
        pixels = np.random.default_rng(len(name) + orientation).integers(0, 256, coarse, np.uint8)
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert(mode)
        image.save(tmp_path / name, exif=exif, **options)
        return tmp_path / name

    return write


def _listed(*paths: Path) -> Manifest:
    rows = []
    for path in paths:
        with path.open("rb") as file:
            header, _ = read_photo(file, path.suffix)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        rows.append({"path": str(path), "sha256": digest, **vars(header)})
    return Manifest(pd.DataFrame(rows).assign(label="a", split="train"), ("a",), problem_table())


def _all(fetch: Fetch, count: int) -> np.ndarray:
    """One at a time."""
    return np.stack(list(tf.data.Dataset.range(count).map(fetch).as_numpy_iterator()))


def _together(fetch: Fetch, count: int) -> np.ndarray:
    """In one batch."""
    return next(tf.data.Dataset.range(count).batch(count).map(fetch).as_numpy_iterator())


def _by_pillow(manifest: Manifest, size: tuple[int, int]) -> np.ndarray:
    return np.stack([load_image(path, size) for path in manifest.table["path"]])


@pytest.fixture
def no_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, *_: Any) -> None:
        raise AssertionError(f"{path} went to Pillow")

    monkeypatch.setattr(fetching_module, "load_unchanged", refuse)


@pytest.mark.usefixtures("no_pillow")
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(24, 24), (20, 30), (33, 18)])
def test_tensorflow_gives_the_pixels_of_pillow_to_one_level(
    size: tuple[int, int], mode: str, save: Write
) -> None:
    # Smaller than wanted, about it, and shrunk by 2, 4, 8 with and without averaging on top.
    factors = [(0.7, 0.6), (1.7, 1.2), (2.3, 2.9), (5.1, 4.2), (13, 8.3), (14, 20), (23, 21)]
    sides = [(round(across * size[1]), round(down * size[0])) for across, down in factors]
    manifest = _listed(
        *(
            save(f"{turn}-{side[0]}.jpg", side, mode, turn, quality=92, subsampling=turn % 3)
            for turn, side in itertools.product(range(1, 9), sides)
        )
    )
    cuts = [window(side, size[::-1]) for side in sides]
    assert {cut.shrink for cut in cuts} == {1, 2, 4, 8}
    assert {cut.smooth for cut in cuts} == {True, False}
    found = _all(fetch_files(manifest, np.arange(len(manifest.table)), size), 56)
    difference = abs(found.astype(int) - _by_pillow(manifest, size))
    assert difference.max() <= 1
    assert difference.mean() < 0.1


@pytest.mark.usefixtures("no_pillow")
def test_of_several_pictures_in_one_jpeg_the_first_is_read(save: Write, tmp_path: Path) -> None:
    first, second = (Image.open(save(f"{name}.png", (40, 30))) for name in ("a", "bcd"))
    first.save(tmp_path / "a.mpo", save_all=True, append_images=[second])
    manifest = _listed(tmp_path / "a.mpo")
    assert manifest.table["format"][0] == "MPO"
    found = _all(fetch_files(manifest, np.arange(1), (16, 16)), 1)
    assert abs(found.astype(int) - _by_pillow(manifest, (16, 16))).max() <= 1


@pytest.fixture
def mixed(save: Write) -> Manifest:
    """Files for TensorFlow and for Pillow."""
    return _listed(
        save("rgb.jpg", (50, 40), orientation=6),
        save("cmyk.jpg", (50, 40), "CMYK"),
        save("grey.jpg", (40, 60), "L"),
        save("alpha.png", (50, 40), "RGBA"),
        save("flat.gif", (30, 30), "P"),
        save("large.jpg", (160, 120)),
    )


def test_files_for_tensorflow_and_for_pillow_come_in_one_batch(mixed: Manifest) -> None:
    found = _all(fetch_files(mixed, np.arange(6), (20, 28)), 6)
    expected = _by_pillow(mixed, (20, 28))
    assert abs(found.astype(int) - expected).max() <= 1
    np.testing.assert_array_equal(found[[1, 3, 4]], expected[[1, 3, 4]])


def test_rows_are_those_of_the_table(mixed: Manifest) -> None:
    expected = _all(fetch_files(mixed, np.arange(6), (8, 8)), 6)
    rows = np.array([5, 0, 3])
    np.testing.assert_array_equal(_all(fetch_files(mixed, rows, (8, 8)), 3), expected[rows])


@pytest.mark.parametrize("column", ["format", "mode", "orientation"])
def test_a_table_that_says_less_goes_to_pillow(column: str, mixed: Manifest) -> None:
    less = replace(mixed, table=mixed.table.drop(columns=column))
    found = _all(fetch_files(less, np.arange(6), (20, 28)), 6)
    np.testing.assert_array_equal(found, _by_pillow(mixed, (20, 28)))


def test_a_column_of_another_meaning_goes_to_pillow(mixed: Manifest) -> None:
    strange = replace(mixed, table=mixed.table.assign(orientation="landscape"))
    found = _all(fetch_files(strange, np.arange(6), (20, 28)), 6)
    np.testing.assert_array_equal(found, _by_pillow(mixed, (20, 28)))


def test_bytes_after_the_end_of_a_jpeg_change_nothing(save: Write) -> None:
    path = save("a.jpg", (50, 40))
    expected = load_image(path, 16)
    path.write_bytes(path.read_bytes() + b"\0" * 100)
    found = _all(fetch_files(_listed(path), np.arange(1), (16, 16)), 1)
    np.testing.assert_array_equal(found[0], expected)


def test_transparent_pixels_show_the_background(save: Write) -> None:
    path = save("a.png", (8, 8))
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(path)
    found = _all(fetch_files(_listed(path), np.arange(1), (8, 8), "#102030"), 1)
    np.testing.assert_array_equal(found, np.full((1, 8, 8, 3), [16, 32, 48]))
    with pytest.raises(DataError, match="no color is called 'wite'"):
        fetch_files(_listed(path), np.arange(1), (8, 8), "wite")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("no photo")


def _torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _headless(path: Path) -> None:
    path.write_bytes(b"\0" * 300 + path.read_bytes()[300:])


def _other(path: Path) -> None:
    Image.new("RGB", (64, 30)).save(path)


@pytest.mark.parametrize("change", [Path.unlink, _empty, _text, _torn, _headless, _other])
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_file_that_changed_is_named(
    name: str, change: Callable[[Path], None], save: Write
) -> None:
    paths = [save("whole.jpg", (50, 40)), save(name, (50, 40))]
    fetch = fetch_files(_listed(*paths), np.arange(2), (16, 16))
    change(paths[1])
    with pytest.raises(tf.errors.OpError) as caught:
        _all(fetch, 2)
    assert str(paths[1]) in caught.value.message
    told = ("cannot be read", "was changed since", "No such file")
    assert any(words in caught.value.message for words in told)


@pytest.fixture
def images(save: Write, tmp_path: Path) -> np.ndarray:
    paths = [save(f"{place}.png", (20 + place, 30)) for place in range(12)]
    return decode(_listed(*paths), (10, 14), tmp_path / "out")


def test_decoded_rows_come_from_any_array(images: np.ndarray) -> None:
    rows = np.array([3, 11, 0, 7])
    changed = np.load(images.filename, mmap_mode="c")
    changed[3] = 1
    arrays = [
        changed,
        images,
        np.array(images),
        images[1:],  # a view, of which the file's offset is not that of its first row
        images[::-1],
        images[:, ::-1],
        images[np.arange(12)],
    ]
    for array in arrays:
        wanted = rows % len(array)
        found = _together(fetch_decoded(array, wanted), 4)
        np.testing.assert_array_equal(found, array[wanted])


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux")
def test_reading_a_mapped_file_leaves_none_of_it_in_memory(tmp_path: Path) -> None:
    photos = np.random.default_rng(0).integers(0, 256, (1000, 128, 128, 3), np.uint8)
    np.save(tmp_path / "images.npy", photos)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")

    def resident() -> int:
        """Kilobytes."""
        lines = iter(Path("/proc/self/smaps").read_text().splitlines())
        mine = itertools.dropwhile(lambda line: "images.npy" not in line, lines)
        return next(int(line.split()[1]) for line in mine if line.startswith("Rss:"))

    np.testing.assert_array_equal(_together(fetch_decoded(mapped, np.arange(1000)), 1000), photos)
    assert resident() < photos.nbytes / 1024 / 2
    photos[:] = mapped
    assert resident() > photos.nbytes / 1024 * 0.9  # the map touched, for comparison


def test_a_mapped_file_replaced_since_is_refused(images: np.ndarray) -> None:
    path = Path(images.filename)
    fetch = fetch_decoded(images, np.arange(12))
    path.rename(path.with_name("old.npy"))
    np.save(path, images[::-1])
    with pytest.raises(DataError, match="was replaced after it was mapped"):
        fetch_decoded(images, np.arange(12))
    with pytest.raises(tf.errors.OpError, match="was replaced after it was mapped"):
        _together(fetch, 12)


def test_a_mapped_file_cut_off_since_is_told(images: np.ndarray) -> None:
    fetch = fetch_decoded(images, np.arange(12))
    content = Path(images.filename).read_bytes()
    Path(images.filename).write_bytes(content[:-100])
    with pytest.raises(tf.errors.OpError, match=r"images\.npy was cut off"):
        _together(fetch, 12)
    Path(images.filename).write_bytes(content)


def test_a_photo_changed_since_is_refused_by_its_digest(save: Write) -> None:
    path = save("a.png", (20, 20))
    with pytest.raises(DataError, match="was changed since"):
        load_unchanged(path, "0" * 64, "", (8, 8), "white")
