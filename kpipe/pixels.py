"""Decode every photo to the same form: RGB, upright, [0, 255].

in the file                        in memory
EXIF orientation                   turned upright
alpha, transparent palette         composed over a background
16-bit grey                        value * 255 / 65535, rounded
CMYK, palette, grey, one bit       converted to RGB
several frames                     the first
any size                           shrunk while decoding, then a centered crop of the requested
                                   aspect ratio, resized bilinearly
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageColor, UnidentifiedImageError

from kpipe.crop_window import window
from kpipe.errors import DataError, nearest

__all__ = [
    "SUFFIXES",
    "Header",
    "Unreadable",
    "background_color",
    "fit_image",
    "fit_photo",
    "read_photo",
]

# A closed list: Pillow also supports formats that start other programs.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
# Suffixes of photos, including formats that cannot be read.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".dib", ".gif", ".webp", ".tif"),
    *(".tiff", ".ppm", ".pgm", ".pbm", ".heic", ".heif", ".avif", ".jp2", ".dng", ".cr2", ".nef"),
)
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
    """A file that is not a usable photo.

    Args:
        kind: "empty file", "not an image", "too many pixels", "truncated" or "undecodable".
        detail: the decoder's message.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


@dataclass(frozen=True)
class Header:
    """The metadata of a photo.

    Args:
        format: Pillow's name of the format, such as "JPEG".
        mode: Pillow's name of the pixel mode in the file, such as "RGB", "L", "CMYK" or "I;16".
        width: width of the upright photo, in pixels.
        height: height of the upright photo, in pixels.
        orientation: EXIF orientation, 1 (upright) to 8; from 5, width and height are swapped in the
            file. Always 1 for a TIFF, which the decoder turns.
    """

    format: str
    mode: str
    width: int
    height: int
    orientation: int


def background_color(name: str) -> tuple[int, int, int]:
    """Return (red, green, blue) in [0, 255] of a CSS color, such as "white" or "#f0f0f0".

    Raises:
        DataError: an unknown color.

    Example:
        >>> from kpipe.pixels import background_color
        >>> background_color("#f0f0f0")
        (240, 240, 240)
    """
    try:
        red, green, blue = ImageColor.getrgb(name)[:3]
    except ValueError as error:
        raise DataError(
            f"no color is called {name!r}",
            expected='a CSS color, such as "white" or "#f0f0f0"',
            fix=nearest(name, ImageColor.colormap),
        ) from error
    return red, green, blue


def read_photo(
    file: BinaryIO, suffix: str, *, at_least: int | None = None, background: str = "white"
) -> tuple[Header, Image.Image]:
    """Read a photo completely, which detects truncated files.

    `PIL.Image.MAX_IMAGE_PIXELS` (89 million by default) limits the number of pixels. It is checked
    before decoding.

    Args:
        file: an open binary file.
        suffix: the suffix of its name, such as ".jpg", for the error about a file that is no image.
        at_least: allows shrinking by 2, 4 or 8 while no side falls below this many pixels.
        background: CSS color under transparent pixels.

    Returns:
        The header, and an upright RGB image.

    Raises:
        Unreadable: the photo cannot be used, with the reason.

    Example:
        >>> from pathlib import Path
        >>> from kpipe.pixels import read_photo
        >>> with sorted(Path("photos/red").iterdir())[0].open("rb") as file:
        ...     header, image = read_photo(file, ".png")
        >>> header
        Header(format='PNG', mode='RGB', width=48, height=40, orientation=1)
    """
    side = at_least or Image.MAX_IMAGE_PIXELS or 2**31
    header, image = _decoded(file, suffix, (side, side), background)
    return header, _upright(image, header.orientation)


def fit_photo(
    file: BinaryIO, suffix: str, size: tuple[int, int], *, background: str = "white"
) -> np.ndarray:
    """Read a photo as models see it.

    Args:
        file: an open binary file.
        suffix: the suffix of its name.
        size: (height, width) in pixels.
        background: CSS color under transparent pixels.

    Returns:
        (height, width, 3) uint8 in [0, 255]: RGB, upright, the longer side center-cropped.

    Raises:
        Unreadable: the photo cannot be used, with the reason.
    """
    height, width = size
    header, image = _decoded(file, suffix, (width, height), background)
    return _crop(image, header, (width, height))


def fit_image(
    image: Image.Image, size: tuple[int, int], *, background: str = "white"
) -> np.ndarray:
    """Return the same from a Pillow image, loaded or not.

    Example:
        >>> from PIL import Image
        >>> from kpipe.pixels import fit_image
        >>> fit_image(Image.new("L", (300, 200)), (32, 32)).shape
        (32, 32, 3)
    """
    with _translate_decoder_errors():
        header = _header(image)
        height, width = size
        return _crop(_rgb(image, background), header, (width, height))


def _decoded(
    file: BinaryIO, suffix: str, wanted: tuple[int, int], background: str
) -> tuple[Header, Image.Image]:
    """Decode to RGB in the orientation of the file; the JPEG decoder also shrinks."""
    with _translate_decoder_errors():
        try:
            opened = Image.open(file, formats=_FORMATS)
        except UnidentifiedImageError as error:
            raise _not_an_image(file, suffix) from error
        with opened as image:
            header = _header(image)
            shrink = window(image.size, _turned(wanted, header)).shrink
            # Only JPEG supports drafts; Pillow derives the factor from the size.
            image.draft("", (image.width // shrink, image.height // shrink))
            image.load()
            return header, _rgb(image, background)


@contextlib.contextmanager
def _translate_decoder_errors() -> Iterator[None]:
    try:
        yield
    except Unreadable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unreadable("too many pixels", str(error)) from error
    except Exception as error:
        # Decoders raise a dozen types of exceptions for broken files.
        kind = "truncated" if "truncated" in str(error).lower() else "undecodable"
        raise Unreadable(kind, f"{type(error).__name__}: {error}") from error


def _not_an_image(file: BinaryIO, suffix: str) -> Unreadable:
    if not file.seek(0, os.SEEK_END):
        return Unreadable("empty file", "0 bytes")
    if suffix.lower() in SUFFIXES:
        return Unreadable("undecodable", f"the content is not {', '.join(_FORMATS)}")
    return Unreadable("not an image", f"the name ends in {suffix!r}")


def _header(image: Image.Image) -> Header:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise Unreadable("too many pixels", f"{image.width} x {image.height}")
    if image.format == "TIFF":  # Pillow turns it upright while loading.
        image.load()
    orientation = image.getexif().get(_ORIENTATION, 1)
    orientation = orientation if orientation in _TURNS else 1
    width, height = image.size[::-1] if orientation >= 5 else image.size
    return Header(image.format or "", image.mode, width, height, orientation)


def _turned(size: tuple[int, int], header: Header) -> tuple[int, int]:
    return size[::-1] if header.orientation >= 5 else size


def _crop(image: Image.Image, header: Header, wanted: tuple[int, int]) -> np.ndarray:
    """Crop an RGB image, resize it and turn it upright."""
    size = _turned(wanted, header)
    stored = _turned((header.width, header.height), header)
    crop = window(stored, size)
    if image.width > -(-stored[0] // crop.shrink):
        image = image.reduce(crop.shrink)
    image = image.crop((crop.left, crop.top, crop.left + crop.width, crop.top + crop.height))
    if crop.smooth:
        image = image.resize(size, Image.Resampling.BILINEAR)
    else:
        whole = (0, 0, *image.size)
        image = image.transform(size, Image.Transform.EXTENT, whole, Image.Resampling.BILINEAR)
    return np.asarray(_upright(image, header.orientation))


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _rgb(image: Image.Image, background: str) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise Unreadable("undecodable", "32-bit values of unknown range")
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise Unreadable("undecodable", "floating-point values of unknown range")
    if image.has_transparency_data:
        color = image.convert("RGBA")
        under = Image.new("RGBA", color.size, (*background_color(background), 255))
        return Image.alpha_composite(under, color).convert("RGB")
    return image.convert("RGB")
