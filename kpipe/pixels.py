"""One meaning for every photo: RGB, upright, [0, 255].

in the file                        in memory
EXIF orientation                   turned upright
alpha, transparent palette         composed over a background
16-bit grey                        value * 255 / 65535, rounded
CMYK, palette, grey, one bit       converted to RGB
several frames                     the first
any size                           shrunk while it is decoded, then the centered window of the
                                   wanted aspect, bilinear

shrink := the largest of 1, 2, 4, 8 that leaves the photo as large as wanted

Shrinking averages (in a JPEG, by decoding fewer coefficients, which costs a fraction); the bilinear
step then takes a factor below two, and one above it only where 8 is not enough, antialiased.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageColor, UnidentifiedImageError

from kpipe.errors import DataError, nearest

__all__ = [
    "SHRINKS",
    "SUFFIXES",
    "Header",
    "Unreadable",
    "Window",
    "background_color",
    "fit_image",
    "fit_photo",
    "read_photo",
    "window",
]

# A closed list: Pillow also knows formats that start other programs.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
# Names that photos go by, those of formats that are not read too.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".dib", ".gif", ".webp", ".tif"),
    *(".tiff", ".ppm", ".pgm", ".pbm", ".heic", ".heif", ".avif", ".jp2", ".dng", ".cr2", ".nef"),
)
SHRINKS = (8, 4, 2, 1)
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Unreadable(ValueError):
    """A file that holds no photo that can be used.

    Args:
        kind: "empty file", "not an image", "too many pixels", "truncated" or "undecodable".
        detail: what the decoder said.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


@dataclass(frozen=True)
class Header:
    """What a file says of its photo.

    Args:
        format: in Pillow's words, such as "JPEG".
        mode: of the pixels in the file, in Pillow's words, such as "RGB", "L", "CMYK", "I;16".
        width: in pixels, of the photo upright.
        height: in pixels, of the photo upright.
        orientation: of EXIF, 1 (upright) to 8; from 5 on, the file holds it lying on its side. 1 of
            a TIFF, which the decoder turns.
    """

    format: str
    mode: str
    width: int
    height: int
    orientation: int


@dataclass(frozen=True)
class Window:
    """Which part of a photo is wanted, as it lies in the file.

    Args:
        shrink: 1, 2, 4 or 8, the factor by which the sides are divided (rounded up) first.
        left: of the window, in pixels of the shrunk photo; `top`, `width` and `height` likewise.
        smooth: whether the window is still more than twice as large as wanted.
    """

    shrink: int
    left: int
    top: int
    width: int
    height: int
    smooth: bool


def window(stored: tuple[int, int], wanted: tuple[int, int]) -> Window:
    """The centered window of the wanted aspect.

    Args:
        stored: (width, height) of the photo in the file, not turned.
        wanted: (width, height) before the photo is turned upright.
    """
    room = min(stored[0] // wanted[0], stored[1] // wanted[1])
    shrink = next((factor for factor in SHRINKS if factor <= room), 1)
    across, down = (-(-side // shrink) for side in stored)
    width = min(across, max(1, round(down * wanted[0] / wanted[1])))
    height = min(down, max(1, round(across * wanted[1] / wanted[0])))
    left, top = (across - width) // 2, (down - height) // 2
    smooth = max(width / wanted[0], height / wanted[1]) > 2
    return Window(shrink, left, top, width, height, smooth)


def background_color(name: str) -> tuple[int, int, int]:
    """(red, green, blue) in [0, 255] of a CSS color, such as "white" or "#f0f0f0".

    Raises:
        DataError: no such color.
    """
    try:
        red, green, blue = ImageColor.getrgb(name)[:3]
    except (ValueError, TypeError) as error:
        raise DataError(
            f"no color is called {name!r}",
            expected='a CSS color, such as "white" or "#f0f0f0"',
            fix=nearest(str(name), ImageColor.colormap),
        ) from error
    return red, green, blue


def read_photo(
    file: BinaryIO, suffix: str, *, at_least: int | None = None, background: str = "white"
) -> tuple[Header, Image.Image]:
    """Read a whole photo, so that a truncated one is found.

    The number of pixels is bounded by `PIL.Image.MAX_IMAGE_PIXELS` (89 million as it comes),
    looked at before anything is decoded.

    Args:
        file: an open binary file.
        suffix: of its name, such as ".jpg"; only words the refusal of what is no image.
        at_least: pixels; a larger photo may come shrunk by 2, 4 or 8, no side below this.
        background: a CSS color, under transparent pixels.

    Returns:
        The header, and an RGB image, upright.

    Raises:
        Unreadable: with the reason.
    """
    side = at_least or Image.MAX_IMAGE_PIXELS or 2**31
    header, image = _decoded(file, suffix, (side, side), background)
    return header, _upright(image, header.orientation)


def fit_photo(
    file: BinaryIO, suffix: str, size: tuple[int, int], *, background: str = "white"
) -> np.ndarray:
    """A photo as the models see it.

    Args:
        file: an open binary file.
        suffix: of its name.
        size: (height, width) in pixels.
        background: a CSS color, under transparent pixels.

    Returns:
        (height, width, 3) uint8 in [0, 255]: RGB, upright, the longer side cropped at its center.

    Raises:
        Unreadable: with the reason.
    """
    height, width = size
    header, image = _decoded(file, suffix, (width, height), background)
    return _cut(image, header, (width, height))


def fit_image(
    image: Image.Image, size: tuple[int, int], *, background: str = "white"
) -> np.ndarray:
    """The same of a Pillow image, loaded or not.

    Raises:
        Unreadable: with the reason.
    """
    with _told():
        header = _header(image)
        height, width = size
        return _cut(_rgb(image, background), header, (width, height))


def _decoded(
    file: BinaryIO, suffix: str, wanted: tuple[int, int], background: str
) -> tuple[Header, Image.Image]:
    """RGB as it lies in the file, shrunk by the decoder of a JPEG, whole of other formats."""
    with _told():
        try:
            opened = Image.open(file, formats=_FORMATS)
        except UnidentifiedImageError as error:
            raise _strange(file, suffix) from error
        with opened as image:
            header = _header(image)
            shrink = window(image.size, _turned(wanted, header)).shrink
            # Draft modes hold for JPEG alone; Pillow takes the factor from the size.
            image.draft("", (image.width // shrink, image.height // shrink))
            image.load()
            return header, _rgb(image, background)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What a decoder raises, as `Unreadable`."""
    try:
        yield
    except Unreadable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unreadable("too many pixels", str(error)) from error
    except Exception as error:
        # Decoders raise a dozen types on broken files. Each is told, none is dropped.
        kind = "truncated" if "truncated" in str(error).lower() else "undecodable"
        raise Unreadable(kind, f"{type(error).__name__}: {error}") from error


def _strange(file: BinaryIO, suffix: str) -> Unreadable:
    if not file.seek(0, os.SEEK_END):
        return Unreadable("empty file", "0 bytes")
    if suffix.lower() in SUFFIXES:
        return Unreadable("undecodable", f"the content is not {', '.join(_FORMATS)}")
    return Unreadable("not an image", f"the name ends in {suffix!r}")


def _header(image: Image.Image) -> Header:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise Unreadable("too many pixels", f"{image.width} x {image.height}")
    if image.format == "TIFF":  # Pillow turns these upright when it loads them
        image.load()
    orientation = image.getexif().get(_ORIENTATION, 1)
    orientation = orientation if orientation in _TURNS else 1
    width, height = image.size[::-1] if orientation >= 5 else image.size
    return Header(image.format or "", image.mode, width, height, orientation)


def _turned(size: tuple[int, int], header: Header) -> tuple[int, int]:
    return size[::-1] if header.orientation >= 5 else size


def _cut(image: Image.Image, header: Header, wanted: tuple[int, int]) -> np.ndarray:
    """The window of an RGB image, at the wanted size, turned upright."""
    lying = _turned(wanted, header)
    cut = window(_turned((header.width, header.height), header), lying)
    if image.width > -(-_turned((header.width, header.height), header)[0] // cut.shrink):
        image = image.reduce(cut.shrink)
    image = image.crop((cut.left, cut.top, cut.left + cut.width, cut.top + cut.height))
    if cut.smooth:
        image = image.resize(lying, Image.Resampling.BILINEAR)
    else:
        whole = (0, 0, *image.size)
        image = image.transform(lying, Image.Transform.EXTENT, whole, Image.Resampling.BILINEAR)
    return np.asarray(_upright(image, header.orientation))


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _rgb(image: Image.Image, background: str) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise Unreadable("undecodable", "32-bit values, of which the range is not known")
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise Unreadable("undecodable", "floating-point values, of which the range is not known")
    if image.has_transparency_data:
        color = image.convert("RGBA")
        under = Image.new("RGBA", color.size, (*background_color(background), 255))
        return Image.alpha_composite(under, color).convert("RGB")
    return image.convert("RGB")
