from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kpipe.crop_window import SHRINKS, window
from kpipe.errors import DataError
from kpipe.pixels import (
    Unreadable,
    background_color,
    fit_image,
    fit_photo,
    read_photo,
)


def _random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def _scene(height: int, width: int) -> np.ndarray:
    """Smooth, so that a JPEG keeps it; no two corners alike."""
    down, across = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = [np.sin(4 * across + down), np.cos(3 * down + across), across * down]
    return (np.stack(waves, -1) * 100 + 120).astype(np.uint8)


def _file(image: Image.Image | np.ndarray, format: str = "PNG", **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, format, **options)
    file.seek(0)
    return file


def _read(file: io.BytesIO, **options: Any) -> np.ndarray:
    return np.asarray(read_photo(file, ".png", **options)[1])


def _fit(file: io.BytesIO, *size: int, **options: Any) -> np.ndarray:
    return fit_photo(file, ".png", size, **options)


def _difference(one: np.ndarray, other: np.ndarray) -> int:
    assert one.shape == other.shape
    return int(abs(np.asarray(one, float) - other).max())


def _lying(upright: np.ndarray, orientation: int) -> tuple[np.ndarray, Image.Exif]:
    """How a camera stores an upright scene: the inverse of what the tag asks for."""
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
    return np.ascontiguousarray(stored), exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_every_orientation_comes_upright(orientation: int, format: str) -> None:
    upright = _random(6, 9, 3)
    stored, exif = _lying(upright, orientation)
    header, image = read_photo(_file(stored, format, exif=exif), ".png")
    np.testing.assert_array_equal(np.asarray(image), upright)
    left = 1 if format == "TIFF" else orientation  # Pillow turns a TIFF itself
    assert (header.width, header.height, header.orientation) == (9, 6, left)


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("orientation", [3, 6])
def test_a_pillow_image_is_turned_once(orientation: int, loaded: bool) -> None:
    upright = _scene(160, 240)
    stored, exif = _lying(upright, orientation)
    expected = fit_image(Image.fromarray(upright), (20, 28))
    image = Image.open(_file(stored, "TIFF", exif=exif))
    if loaded:
        image.load()
    assert _difference(fit_image(image, (20, 28)), expected) <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF"])
def test_every_orientation_is_fitted_upright(orientation: int, format: str) -> None:
    upright = _scene(160, 240)
    stored, exif = _lying(upright, orientation)
    options = {"quality": 95} if format == "JPEG" else {}
    expected = _fit(_file(upright, format, **options), 20, 28)
    found = _fit(_file(stored, format, **options, exif=exif), 20, 28)
    # Mirrored interpolation is truncated at other places; JPEG blocks are transformed turned.
    assert _difference(found, expected) <= (4 if format == "JPEG" else 1)
    assert _difference(_fit(_file(stored, format), 20, 28), expected) > 20 or orientation == 1


def test_an_invalid_orientation_is_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 9
    header, _ = read_photo(_file(_random(4, 5, 3), exif=exif), ".png")
    assert (header.width, header.height, header.orientation) == (5, 4, 1)


@pytest.mark.parametrize("background", ["white", "black", "#102030"])
def test_alpha_is_composed_over_the_background(background: str) -> None:
    pixels = _random(5, 7, 4)
    alpha = pixels[..., 3:] / 255
    expected = pixels[..., :3] * alpha + np.array(background_color(background)) * (1 - alpha)
    assert _difference(_read(_file(pixels), background=background), expected) <= 1
    fitted = _fit(_file(pixels), 5, 7, background=background)
    np.testing.assert_array_equal(fitted, _read(_file(pixels), background=background))
    fitted = fit_image(Image.fromarray(pixels), (5, 7), background=background)
    np.testing.assert_array_equal(fitted, _read(_file(pixels), background=background))


def test_a_transparent_palette_color_is_the_background() -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), mode=None).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    file = _file(image, transparency=1)
    expected = [[[255, 0, 0], [255, 255, 255]], [[0, 0, 255], [255, 255, 255]]]
    np.testing.assert_array_equal(_read(file), expected)


def test_a_transparent_color_of_an_rgb_photo_is_the_background() -> None:
    pixels = np.array([[[1, 2, 3], [9, 9, 9]]], np.uint8)
    file = _file(Image.fromarray(pixels), transparency=(1, 2, 3))
    np.testing.assert_array_equal(_read(file), [[[255, 255, 255], [9, 9, 9]]])


@pytest.mark.parametrize("name", ["wite", "", "#12"])
def test_an_unknown_color_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="no color is called"):
        background_color(name)
    with pytest.raises(DataError, match="did you mean 'white'"):
        background_color("wite")


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(format: str) -> None:
    values = np.array([[0, 128, 129, 257], [32768, 65535, 65406, 65407]], np.uint16)
    expected = np.repeat(np.round(values / 257)[..., None], 3, axis=-1)
    np.testing.assert_array_equal(_read(_file(values, format)), expected)


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "P", "YCbCr"])
def test_other_modes_are_converted_as_pillow_does(mode: str) -> None:
    format = "PNG" if mode in ("L", "1", "P") else "JPEG"
    file = _file(Image.fromarray(_random(20, 30, 3)).convert(mode), format)
    with Image.open(file) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(_read(file), expected)


def test_the_header_describes_the_file() -> None:
    for mode, format in (("L", "PNG"), ("CMYK", "JPEG"), ("P", "GIF"), ("RGBA", "WEBP")):
        header, image = read_photo(_file(Image.new(mode, (3, 2)), format), "")
        assert (header.format, header.width, header.height) == (format, 3, 2)
        assert header.mode == mode and image.mode == "RGB"


def test_the_first_frame_of_an_animation_is_read() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    file = _file(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(_read(file), np.full((4, 4, 3), [255, 0, 0]))


def _png_header(width: int, height: int) -> io.BytesIO:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + chunks + struct.pack(">I", 99) + b"IDAT")


_TORN = _file(_random(50, 50, 3), "JPEG").getvalue()[:-900]
_FLOATS = _file(np.ones((2, 2), np.float32), "TIFF")
_LARGE = _file(np.full((2, 2), 70_000, np.int32), "TIFF")


@pytest.mark.parametrize(
    ("content", "suffix", "kind"),
    [
        (b"", ".jpg", "empty file"),
        (b"no photo", ".jpg", "undecodable"),
        (b"no photo", ".txt", "not an image"),
        (_TORN, ".jpg", "truncated"),
        (_FLOATS.getvalue(), ".tif", "undecodable"),
        (_LARGE.getvalue(), ".tif", "undecodable"),
        (_png_header(60_000, 60_000).getvalue(), ".png", "too many pixels"),
    ],
)
def test_an_unreadable_file_is_reported_by_kind(content: bytes, suffix: str, kind: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read_photo(io.BytesIO(content), suffix)
    assert caught.value.kind == kind
    with pytest.raises(Unreadable) as caught:
        fit_photo(io.BytesIO(content), suffix, (4, 4))
    assert caught.value.kind == kind


@pytest.mark.parametrize("content", [_TORN, _FLOATS.getvalue(), _LARGE.getvalue()])
def test_an_unreadable_pillow_image_is_reported_too(content: bytes) -> None:
    with Image.open(io.BytesIO(content)) as image, pytest.raises(Unreadable):
        fit_image(image, (4, 4))


def test_the_number_of_pixels_is_bounded_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    file = _file(_random(10, 10, 3))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 99)
    with pytest.raises(Unreadable, match="too many pixels"):
        _read(file)
    with pytest.raises(Unreadable, match="too many pixels"):
        fit_image(Image.new("RGB", (10, 10)), (4, 4))


@settings(max_examples=60, deadline=None)
@given(
    stored=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    wanted=st.tuples(st.integers(1, 400), st.integers(1, 400)),
)
def test_the_window_is_the_largest_centered_one_of_the_wanted_aspect(
    stored: tuple[int, int], wanted: tuple[int, int]
) -> None:
    cut = window(stored, wanted)
    assert cut.shrink in SHRINKS
    across, down = (-(-side // cut.shrink) for side in stored)
    if cut.shrink > 1:
        assert across >= wanted[0] and down >= wanted[1]
    if cut.shrink < 8:
        assert min(stored[0] // wanted[0], stored[1] // wanted[1]) < 2 * cut.shrink
    assert cut.width == across or cut.height == down
    assert abs(across - cut.width - 2 * cut.left) <= 1
    assert abs(down - cut.height - 2 * cut.top) <= 1
    # The aspect, to half a pixel of the side that was cut.
    if cut.width < across:
        assert abs(cut.width - cut.height * wanted[0] / wanted[1]) <= 0.5 or cut.width == 1
    if cut.height < down:
        assert abs(cut.height - cut.width * wanted[1] / wanted[0]) <= 0.5 or cut.height == 1
    assert cut.smooth == (cut.width > 2 * wanted[0] or cut.height > 2 * wanted[1])


def _bilinear(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Each new pixel's center, between the centers of the four around it; edges repeated."""
    for axis, count in ((0, height), (1, width)):
        length = pixels.shape[axis]
        places = np.clip((np.arange(count) + 0.5) * length / count - 0.5, 0, length - 1)
        low = np.floor(places).astype(int)
        share = (places - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        high = np.minimum(low + 1, length - 1)
        pixels = pixels.take(low, axis) * (1 - share) + pixels.take(high, axis) * share
    return pixels


@pytest.mark.parametrize("size", [(30, 40), (25, 17), (90, 70), (33, 33)])
def test_a_photo_is_fitted_bilinearly(size: tuple[int, int]) -> None:
    pixels = _random(33, 50, 3)
    cut = window((50, 33), size[::-1])
    assert cut.shrink == 1
    part = pixels[cut.top : cut.top + cut.height, cut.left : cut.left + cut.width]
    expected = np.floor(_bilinear(part, *size) + 1e-9)
    assert _difference(_fit(_file(pixels), *size), expected) <= 1


@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_a_large_photo_is_averaged_first(shrink: int) -> None:
    pixels = _random(16 * shrink, 20 * shrink, 3)
    means = pixels.reshape(16, shrink, 20, shrink, 3).mean((1, 3))
    assert _difference(_fit(_file(pixels), 16, 20), means) <= 1
    header, image = read_photo(_file(pixels, "JPEG", quality=95), ".jpg", at_least=16)
    assert image.size == (20, 16) and header.width == 20 * shrink


def test_the_largest_photos_are_averaged_twice() -> None:
    pixels = _random(16 * 24, 16 * 24, 3)
    assert window((384, 384), (16, 16)).smooth
    found = _fit(_file(pixels), 16, 16)
    # A triangle over 48 pixels of noise: near the mean, unlike four neighbors of the 8-fold.
    assert found.std() < pixels.reshape(48, 8, 48, 8, 3).mean((1, 3)).std() / 2


@pytest.mark.parametrize("shrink", [1, 2, 4, 8])
def test_a_jpeg_shrunk_while_decoding_matches_the_same_pixels(shrink: int) -> None:
    scene = _scene(20 * shrink, 33 * shrink)
    exact, decoded = _fit(_file(scene), 18, 18), _fit(_file(scene, "JPEG", quality=95), 18, 18)
    assert _difference(exact, decoded) <= 8


def test_cropping_is_centered() -> None:
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, 8:16] = 200
    np.testing.assert_array_equal(_fit(_file(pixels), 8, 8), np.full((8, 8, 3), 200))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
@pytest.mark.parametrize("size", [(7, 9), (30, 30), (50, 33)])
def test_a_pillow_image_is_fitted_like_its_file(mode: str, size: tuple[int, int]) -> None:
    image = Image.fromarray(_random(33, 50, 3)).convert(mode)
    np.testing.assert_array_equal(fit_image(image, size), _fit(_file(image), *size))
