"""One meaning for every photo: RGB, upright, [0, 255].

in the file                        in memory
EXIF orientation                   turned upright
alpha, transparent palette         composed over white
16-bit grey                        value * 255 / 65535, rounded
CMYK, palette, grey, one bit       converted to RGB
several frames                     the first
any size                           `PIL.ImageOps.fit`: aspect kept, center cropped, bilinear
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from kpipe.data.manifest import Manifest
from kpipe.data.threads import Progress, in_threads
from kpipe.errors import DataError

__all__ = ["ImageSize", "Unreadable", "decode", "height_and_width", "load_image", "read_photo"]

ImageSize = int | tuple[int, int]

# A closed list: Pillow also knows formats that start other programs.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".dib", ".gif", ".webp", ".tif"),
    *(".tiff", ".ppm", ".pgm", ".pbm", ".heic", ".heif", ".avif", ".jp2", ".dng", ".cr2", ".nef"),
)
_SHOWN = 10


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


def read_photo(file: BinaryIO, suffix: str) -> Image.Image:
    """Decode a whole photo.

    The number of pixels is bounded by `PIL.Image.MAX_IMAGE_PIXELS` (89 million as it comes),
    looked at before anything is decoded.

    Args:
        file: an open binary file.
        suffix: of its name, such as ".jpg"; only words the refusal of what is no image.

    Returns:
        An RGB image, upright.

    Raises:
        Unreadable: with the reason.
    """
    try:
        with Image.open(file, formats=_FORMATS) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise Unreadable("too many pixels", f"{image.width} x {image.height}")
            image.load()
            return _rgb(ImageOps.exif_transpose(image))
    except Unreadable:
        raise
    except UnidentifiedImageError as error:
        if not file.seek(0, os.SEEK_END):
            raise Unreadable("empty file", "0 bytes") from error
        if suffix.lower() in _SUFFIXES:
            raise Unreadable("undecodable", f"the content is not {', '.join(_FORMATS)}") from error
        raise Unreadable("not an image", f"the name ends in {suffix!r}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unreadable("too many pixels", str(error)) from error
    except Exception as error:
        # Decoders raise a dozen types on broken files. Each is told, none is dropped.
        kind = "truncated" if "truncated" in str(error).lower() else "undecodable"
        raise Unreadable(kind, f"{type(error).__name__}: {error}") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise Unreadable("undecodable", "32-bit values, of which the range is not known")
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise Unreadable("undecodable", "floating-point values, of which the range is not known")
    if image.has_transparency_data:
        color = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", color.size, "white"), color).convert("RGB")
    return image.convert("RGB")


def height_and_width(image_size: ImageSize) -> tuple[int, int]:
    """The two sides in pixels.

    Args:
        image_size: one number for a square, or (height, width).

    Raises:
        DataError: not one or two whole numbers above zero.
    """
    sides = image_size if isinstance(image_size, tuple | list) else (image_size, image_size)
    whole = all(isinstance(side, int | np.integer) and side > 0 for side in sides)
    if len(sides) != 2 or not whole or any(isinstance(side, bool) for side in sides):
        raise DataError(
            f"no image has the size {image_size!r}",
            expected="pixels: one whole number above zero, or (height, width)",
        )
    return int(sides[0]), int(sides[1])


def load_image(path: str | Path, image_size: ImageSize) -> np.ndarray:
    """One photo as the models see it.

    Args:
        path: of a JPEG, PNG, BMP, GIF, WebP, TIFF or PPM file.
        image_size: pixels, one number for a square or (height, width).

    Returns:
        (height, width, 3) uint8 in [0, 255]: RGB, upright, the longer side cropped at its center.

    Raises:
        DataError: the file cannot be read.
    """
    return _fitted(Path(path), height_and_width(image_size), sha256="")


def _fitted(path: Path, size: tuple[int, int], sha256: str) -> np.ndarray:
    """`load_image`, refusing a file whose digest is not the one given (any, if empty)."""
    try:
        with path.open("rb") as file:
            photo = read_photo(file, path.suffix)
            file.seek(0)
            changed = sha256 and hashlib.file_digest(file, "sha256").hexdigest() != sha256
    except (OSError, Unreadable) as error:
        raise DataError(f"{path} cannot be read", received=str(error)) from error
    if changed:
        raise DataError(
            f"{path} was changed since the manifest was made",
            expected=f"sha256 {sha256}",
            fix="make the manifest again",
        )
    height, width = size
    fitted = ImageOps.fit(photo, (width, height), Image.Resampling.BILINEAR, centering=(0.5, 0.5))
    return np.asarray(fitted)


def decode(
    manifest: Manifest,
    image_size: ImageSize,
    folder: str | Path,
    progress: Progress | None = None,
) -> np.ndarray:
    """Decode every photo once, into `folder/images.npy`.

    Written aside, then renamed: the file is whole or not there.

    Args:
        manifest: the photos.
        image_size: pixels, one number for a square or (height, width).
        folder: made if need be.
        progress: called as `progress(done, total)`.

    Returns:
        (photos, height, width, 3) uint8 in [0, 255], mapped from the file, read-only; row i is
        row i of `manifest.table`.

    Raises:
        DataError: photos that cannot be read any more, or were changed, each of them named; or a
            folder that cannot be written.
    """
    size = height_and_width(image_size)
    folder = Path(folder)
    paths, digests = manifest.table["path"], manifest.table["sha256"]

    def load(row: tuple[str, str]) -> np.ndarray | DataError:
        try:
            return _fitted(Path(row[0]), size, row[1])
        except DataError as error:
            return error

    aside, errors = folder / "images.npy.part", []
    shape = (len(paths), *size, 3)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Plain writes, not a memory map: on a full disk these raise, a map kills the process.
        with aside.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for image in in_threads(load, list(zip(paths, digests, strict=True)), progress):
                if isinstance(image, DataError):
                    errors.append(image)
                else:
                    file.write(image.tobytes())
            file.flush()
            os.fsync(file.fileno())
        if errors:
            raise _together(errors)
        os.replace(aside, folder / "images.npy")
    except OSError as error:
        raise DataError(
            f"the decoded photos cannot be written to {folder}",
            expected=f"room for {math.prod(shape) / 1e6:,.0f} MB",
            received=str(error),
        ) from error
    finally:
        # Nothing can be there where not even the folder is.
        with contextlib.suppress(NotADirectoryError):
            aside.unlink(missing_ok=True)
    return np.load(folder / "images.npy", mmap_mode="r")


def _together(errors: list[DataError]) -> DataError:
    shown = [f"{error.what} ({error.received or error.expected})" for error in errors[:_SHOWN]]
    more = [f"and {len(errors) - _SHOWN} more"] if len(errors) > _SHOWN else []
    return DataError(
        f"{len(errors)} photos of the manifest cannot be decoded",
        received="\n    ".join(shown + more),
        fix="make the manifest again: it sets aside what cannot be read",
    )
