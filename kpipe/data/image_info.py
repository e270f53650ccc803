"""What one file holds, from a single reading.

ImageInfo := sha256 of the file's bytes, and
             of a photo:  format, mode, orientation, size; mean and deviation of each channel;
                          perceptual hash; thumbnail; whether it moves; damage of its data
             otherwise:   kind and detail of the problem
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from kpipe.data.file_status import current_status, sha256_of
from kpipe.pixels import Header, Unreadable, read_photo

__all__ = [
    "CHANNELS", "COLORS", "THUMBNAIL", "UNREADABLE", "ImageInfo", "photo_problems",
    "read_image_info", "wrong_extension",
]  # fmt: skip

# Side in pixels of the grey square that near duplicates are found by.
THUMBNAIL = 64
# Side in pixels of the color square that near duplicates are found by.
COLORS = 4
# Length of `ImageInfo.channels`.
CHANNELS = 6
# Kinds of problems that make a file unusable as a photo.
UNREADABLE = frozenset(
    ["empty file", "truncated", "undecodable", "too many pixels", "missing file", "unreadable file"]
)
_LEVELS = np.arange(256.0)
# Formats of several frames. Phones write MPO, whose first frame is the photo.
_MOVING = ("GIF", "PNG", "TIFF", "WEBP")
# What the JPEG decoder fills in for lost data, and the percentage of the height that is reported.
_FILL, _LOST = 128, 2
# Rows of the largest usual block, and one that interpolated colors reach.
_BLOCK = 17
_JPEG = ("JPEG", "MPO")
# Quarter turns, against the clock, from an upright photo back to the rows of its file.
_BACK = {3: 2, 4: 2, 5: -1, 6: 1, 7: 1, 8: -1}
# The formats that an extension promises; other extensions promise none.
_PROMISES = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), ("JPEG", "MPO")),
    **dict.fromkeys((".bmp", ".dib"), ("BMP",)),
    **dict.fromkeys((".tif", ".tiff"), ("TIFF",)),
    **dict.fromkeys((".ppm", ".pgm", ".pbm"), ("PPM",)),
    **dict.fromkeys((".heic", ".heif"), ("HEIF",)),
    ".png": ("PNG",),
    ".gif": ("GIF",),
    ".webp": ("WEBP",),
    ".avif": ("AVIF",),
    ".jp2": ("JPEG2000",),
}


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What one file holds.

    Args:
        sha256: sha256 of the file's bytes in hexadecimal; "" if the file cannot be read.
        format: Pillow's name of the format.
        mode: Pillow's name of the pixel format.
        orientation: EXIF orientation, 1 to 8.
        width: pixels of the upright photo; `height` likewise.
        channels: six float32 in [0, 255]: means of red, green, blue, then standard deviations.
        hash: perceptual hash of the upright photo in grey, eight bytes.
        colors: the whole photo resized to (COLORS, COLORS, 3) uint8 in RGB.
        kind: kind of the problem with the file; "" if it holds a photo.
        detail: detail of the problem.
        moving: whether it has several frames.
        damage: what is wrong with its data, although they can be decoded.
        thumbnail: the whole photo resized to (THUMBNAIL, THUMBNAIL) uint8 in grey; empty when read
            from the cache, until it is requested.
    """

    sha256: str = ""
    format: str = ""
    mode: str = ""
    orientation: int = 1
    width: int = 0
    height: int = 0
    channels: bytes = b""
    hash: bytes = b""
    colors: bytes = b""
    kind: str = ""
    detail: str = ""
    moving: bool = False
    damage: str = ""
    thumbnail: bytes = b""


def read_image_info(
    path: str,
    known: Callable[[str], ImageInfo | None] = lambda digest: None,
    *,
    status: str = "",
    sha256: str = "",
) -> ImageInfo:
    """Read one file; problems with it are part of the result.

    Args:
        path: path of the file.
        known: returns what is known of the content with a sha256, which is then not decoded again.
        status: status of the file for which `sha256` was computed.
        sha256: sha256 of the file, if known; a file that has changed is hashed again.
    """
    try:
        if not Path(path).is_file():
            exists = Path(path).exists()
            detail = "not a regular file" if exists else "there is no such file"
            return ImageInfo(kind="unreadable file" if exists else "missing file", detail=detail)
        with open(path, "rb") as file:
            digest = sha256 or sha256_of(file)
            info = known(digest) or _decode_info(file, Path(path).suffix)
            # Looked at after the reading, so that a change during it is noticed.
            if sha256 and current_status(file) != status:
                return read_image_info(path, known)
    except (OSError, ValueError) as error:
        return ImageInfo(kind="unreadable file", detail=f"{type(error).__name__}: {error}")
    return replace(info, sha256=digest)


def wrong_extension(path: str, format: str) -> str:
    """Return what a file holds if its extension promises another format, else "".

    >>> wrong_extension("a.jpg", "PNG"), wrong_extension("a.jpg", "JPEG")
    ('holds PNG', '')
    """
    promised = _PROMISES.get(os.path.splitext(path)[1].lower())
    return f"holds {format}" if promised and format not in promised else ""


def photo_problems(path: str, info: ImageInfo) -> list[tuple[str, str]]:
    """Return kind and detail of each problem with a file that holds a photo.

    >>> photo_problems("a.jpg", ImageInfo(format="PNG", moving=True))
    [('wrong extension', 'holds PNG'), ('first frame', 'PNG')]
    """
    found = {
        "wrong extension": wrong_extension(path, info.format),
        "first frame": info.format if info.moving else "",
        "damaged photo": info.damage,
    }
    return [(kind, detail) for kind, detail in found.items() if detail]


def _decode_info(file: BinaryIO, suffix: str) -> ImageInfo:
    try:
        header, image = read_photo(file, suffix, at_least=THUMBNAIL)
    except Unreadable as error:
        return ImageInfo(kind=error.kind, detail=error.detail)
    # Reduced by integer factors first, which is fast; the filter then keeps reduced copies aligned
    # with the photo, to a fraction of a pixel.
    square = image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.HAMMING, reducing_gap=2.0)
    grey = square.convert("L")
    return ImageInfo(
        format=header.format,
        mode=header.mode,
        orientation=header.orientation,
        width=header.width,
        height=header.height,
        channels=_channels(image),
        hash=_hash(grey.reduce(2)),
        thumbnail=grey.tobytes(),
        colors=square.reduce(THUMBNAIL // COLORS).tobytes(),
        moving=header.format in _MOVING and _is_moving(file),
        damage=_damage(file, header, image),
    )


def _is_moving(file: BinaryIO) -> bool:
    # Later frames may be damaged, which does not harm the first.
    with contextlib.suppress(Exception), Image.open(file, formats=_MOVING) as image:
        return bool(getattr(image, "is_animated", False))
    return False


def _damage(file: BinaryIO, header: Header, image: Image.Image) -> str:
    """Return what is wrong with data that were decoded; other formats do not show it."""
    if header.format in _JPEG:
        # Compared as stored in the file, from top to bottom.
        rows = np.rot90(np.asarray(image), _BACK.get(header.orientation, 0))
        lost = _last_filled(rows)
        return f"the last {lost} % are grey" if lost >= _LOST else ""
    if header.format == "PNG":
        try:
            with Image.open(file, formats=["PNG"]) as png:
                png.verify()
        except Exception as error:
            return str(error)
    return ""


def _last_filled(rows: np.ndarray) -> int:
    """Return the percentage of the last rows, (height, width, 3), that the decoder filled.

    Data end within a row of blocks: the fill begins at most that row earlier at one end of the rows
    than at the other. Grey that belongs to the picture (bars, a frame, a background) does not.
    """
    kept = (rows != _FILL).any(axis=2)
    # One color all over is another problem.
    if not kept[0].any() or kept[-1].any():
        return 0
    # Per column, the rows after the last one that is kept.
    filled = kept[::-1].argmax(axis=0)
    step = abs(int(filled[0]) - int(filled[-1]))
    if not (kept[:, 0].any() and kept[:, -1].any() and 0 < step <= _BLOCK):
        return 0
    return 100 * int(filled[kept.any(axis=0)].min()) // len(rows)


def _channels(image: Image.Image) -> bytes:
    """Means and deviations from the histogram, which Pillow computes fast."""
    counts = np.array(image.histogram(), np.float64).reshape(3, 256)
    fractions = counts / counts[0].sum()
    mean = fractions @ _LEVELS
    variance = fractions @ _LEVELS**2 - mean**2
    return np.concatenate([mean, np.sqrt(np.maximum(variance, 0))]).astype(np.float32).tobytes()


def _hash(image: Image.Image) -> bytes:
    # Imported only when a photo is decoded: a scan of cached photos does without.
    from imagehash import phash

    return np.packbits(phash(image).hash).tobytes()
