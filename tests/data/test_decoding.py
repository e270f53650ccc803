from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from kpipe.data import decode, from_folder, load_image
from kpipe.data.decoding import Unreadable, read_photo
from kpipe.errors import DataError


def _read(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        return np.asarray(read_photo(file, path.suffix))


def _random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_upright(orientation: int, tmp_path: Path) -> None:
    upright = _random(6, 9, 3)
    # How a camera stores an upright scene: the inverse of what the tag asks for.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(_read(tmp_path / "a.png"), upright)


def test_alpha_is_composed_over_white(tmp_path: Path) -> None:
    pixels = _random(5, 7, 4)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    alpha = pixels[..., 3:] / 255
    expected = pixels[..., :3] * alpha + 255 * (1 - alpha)
    assert abs(_read(tmp_path / "a.png") - expected).max() <= 1


def test_a_transparent_palette_color_is_white(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), mode=None).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "a.png", transparency=1)
    expected = [[[255, 0, 0], [255, 255, 255]], [[0, 0, 255], [255, 255, 255]]]
    np.testing.assert_array_equal(_read(tmp_path / "a.png"), expected)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_not_clipped(suffix: str, tmp_path: Path) -> None:
    values = np.array([[0, 128, 129, 257], [32768, 65535, 65406, 65407]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    expected = np.repeat(np.round(values / 257)[..., None], 3, axis=-1)
    np.testing.assert_array_equal(_read(tmp_path / f"a.{suffix}"), expected)


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "P", "YCbCr"])
def test_other_modes_are_converted_as_pillow_does(mode: str, tmp_path: Path) -> None:
    name = tmp_path / ("a.png" if mode in ("L", "1", "P") else "a.jpg")
    Image.fromarray(_random(20, 30, 3)).convert(mode).save(name)
    with Image.open(name) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(_read(name), expected)


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(_read(tmp_path / "a.gif"), np.full((4, 4, 3), [255, 0, 0]))


def test_values_of_unknown_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "a.tif")
    Image.fromarray(np.full((2, 2), 70_000, np.int32)).save(tmp_path / "b.tif")
    for name in ("a.tif", "b.tif"):
        with pytest.raises(Unreadable, match="range is not known"):
            _read(tmp_path / name)


def test_the_number_of_pixels_is_bounded_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(_random(10, 10, 3)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 99)
    with pytest.raises(Unreadable, match="too many pixels"):
        _read(tmp_path / "a.png")


@pytest.mark.parametrize("size", [(30, 40), (64, 17), (7, 90)])
def test_a_photo_is_fitted_as_pillow_fits_it(size: tuple, photo: Callable[..., Path]) -> None:
    path = photo("a.png", size=(50, 33))
    with Image.open(path) as image:
        expected = ImageOps.fit(image, size[::-1], Image.Resampling.BILINEAR)
    loaded = load_image(path, size)
    assert loaded.dtype == np.uint8
    np.testing.assert_array_equal(loaded, np.asarray(expected))


def test_the_center_is_kept_when_cropping(tmp_path: Path) -> None:
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, 8:16] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_image(tmp_path / "a.png", 8), np.full((8, 8, 3), 200))


@pytest.mark.parametrize("size", [0, -1, 1.5, True, (1, 2, 3), (0, 4), "a"])
def test_what_is_no_size_is_refused(size: object, photo: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="no image has the size"):
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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_a_clear_error_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "images.npy.part").symlink_to("/dev/full")
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
