"""What one file holds, learnt in one reading of it.

facts := the sha256 of its bytes, and
         a photo:  format, mode, orientation, size; mean and deviation of each channel;
                   a perceptual hash; a thumbnail
         or else:  the kind of the problem, and its detail
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from kpipe.pixels import Unreadable, read_photo

__all__ = [
    "CHANNELS",
    "COLORS",
    "THUMBNAIL",
    "UNREADABLE",
    "ImageInfo",
    "read_facts",
    "wrong_extension",
]

# Pixels a side of the square that photos are compared by.
THUMBNAIL = 64
# Likewise, by their colors.
COLORS = 4
# Numbers in `Facts.channels`.
CHANNELS = 6
# Kinds of problems with what should be a photo.
UNREADABLE = frozenset(
    {
        "empty file",
        "truncated",
        "undecodable",
        "too many pixels",
        "missing file",
        "unreadable file",
    }
)
_LEVELS = np.arange(256.0)
# Which format a name promises; other names promise none.
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
        sha256: of the file's bytes, in hexadecimal; "" where it cannot be read.
        format: in Pillow's words; `mode` likewise.
        orientation: of EXIF, 1 to 8.
        width: in pixels, of the photo upright; `height` likewise.
        channels: six float32 in [0, 255]: means of red, green, blue, then standard deviations.
        hash: eight bytes, of the photo upright in grey.
        colors: (COLORS, COLORS, 3) uint8 in RGB, the whole photo squeezed into a square.
        kind: of the problem with it; "" where it is a photo.
        detail: of the problem.
        thumbnail: (THUMBNAIL, THUMBNAIL) uint8 in grey, likewise squeezed; of what is remembered,
            empty until it is asked for.
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
    thumbnail: bytes = b""


def read_facts(
    path: str, known: Callable[[str], ImageInfo | None] = lambda digest: None
) -> ImageInfo:
    """Read one file; what is wrong with it is in the facts too.

    Args:
        path: of the file.
        known: facts by digest, of photos that need not be decoded again.
    """
    try:
        if not Path(path).is_file():
            there = Path(path).exists()
            detail = "not a regular file" if there else "there is no such file"
            return ImageInfo(kind="unreadable file" if there else "missing file", detail=detail)
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            facts = known(digest) or _decoded(file, Path(path).suffix)
    except (OSError, ValueError) as error:
        return ImageInfo(kind="unreadable file", detail=f"{type(error).__name__}: {error}")
    return replace(facts, sha256=digest)


def wrong_extension(path: str, format: str) -> str:
    """What is wrong with a file's name, "" where nothing is.

    >>> wrong_extension("a.jpg", "PNG"), wrong_extension("a.jpg", "JPEG")
    ('holds PNG', '')
    """
    promised = _PROMISES.get(os.path.splitext(path)[1].lower())
    return f"holds {format}" if promised and format not in promised else ""


def _decoded(file: BinaryIO, suffix: str) -> ImageInfo:
    try:
        header, image = read_photo(file, suffix, at_least=THUMBNAIL)
    except Unreadable as error:
        return ImageInfo(kind=error.kind, detail=error.detail)
    # Whole factors first, which is fast; the filter then keeps shrunk copies in step with the
    # photo, to a fraction of a pixel.
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
    )


def _channels(image: Image.Image) -> bytes:
    """Means and deviations by the histogram, which Pillow counts fast."""
    counts = np.array(image.histogram(), np.float64).reshape(3, 256)
    shares = counts / counts[0].sum()
    mean = shares @ _LEVELS
    variance = shares @ _LEVELS**2 - mean**2
    return np.concatenate([mean, np.sqrt(np.maximum(variance, 0))]).astype(np.float32).tobytes()


def _hash(image: Image.Image) -> bytes:
    # Needed for photos that are read, so not by a second look at known ones.
    from imagehash import phash

    return np.packbits(phash(image).hash).tobytes()
