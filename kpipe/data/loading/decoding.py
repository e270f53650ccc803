"""Decode photos one at a time, or all of them into one array on disk.

    images.npy := uint8 (photos, height, width, 3), row i of it is row i of the manifest's table

`kpipe.pixels` defines the pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kpipe.atomic import replacing
from kpipe.data.file_status import current_status, sha256_of
from kpipe.data.manifest import Manifest
from kpipe.data.threads import ProgressCallback, in_threads
from kpipe.errors import DataError
from kpipe.pixels import Unreadable, background_color, fit_photo
from kpipe.printable import printable
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = [
    "ImageSize",
    "check_decoded",
    "decode",
    "height_and_width",
    "load_image",
    "load_unchanged",
]

ImageSize = int | tuple[int, int]

_SHOWN = 10


def height_and_width(image_size: ImageSize) -> tuple[int, int]:
    """Return height and width of an image size; raise a DataError if one is not positive."""
    sides = tuple(image_size) if isinstance(image_size, Sequence) else (image_size, image_size)
    if len(sides) != 2 or not min(sides) > 0:
        raise DataError(
            f"invalid image size {image_size!r}",
            expected="pixels: one integer above zero, or (height, width)",
        )
    return sides[0], sides[1]


def check_decoded(
    manifest: Manifest, images: np.ndarray, size: tuple[int, int] | None = None
) -> None:
    """Refuse images that are not the result of `decode(manifest, size, ...)`, or of any size."""
    shape = tuple(images.shape)
    fits = len(shape) == 4 and shape[0] == len(manifest.table) and shape[3] == 3
    if not fits or images.dtype != np.uint8 or (size or shape[1:3]) != shape[1:3]:
        height, width = size or ("height", "width")
        raise DataError(
            "the decoded images do not match this manifest and size",
            expected=f"uint8 ({len(manifest.table)}, {height}, {width}, 3)",
            received=f"{images.dtype} {shape}",
            fix="decode the same manifest again: kpipe.data.decode(manifest, image_size, folder)",
        )


@names_wrong_kinds
def load_image(path: str | Path, image_size: ImageSize, background: str = "white") -> np.ndarray:
    """Load one photo as models see it.

    Args:
        path: path of a JPEG, PNG, BMP, GIF, WebP, TIFF or PPM file.
        image_size: pixels, one number for a square or (height, width).
        background: a CSS color, shown under transparent pixels.

    Returns:
        (height, width, 3) uint8 in [0, 255]: RGB, upright, the longer side cropped to its center.

    Raises:
        DataError: if the file cannot be read or the color is unknown.

    Example:
        >>> from kpipe.data import load_image
        >>> load_image("photos/red/00.png", (24, 32)).shape
        (24, 32, 3)
    """
    background_color(background)
    return load_unchanged(path, "", "", height_and_width(image_size), background)


def load_unchanged(
    path: str | Path, sha256: str, status: str, size: tuple[int, int], background: str
) -> np.ndarray:
    """Load one photo as `load_image`, and refuse a file that has changed.

    Args:
        path: path of the file.
        sha256: expected sha256 of the file; "" accepts any.
        status: status of the file for which `sha256` holds; a file with another status is
            hashed again.
        size: (height, width) in pixels.
        background: a CSS color, shown under transparent pixels.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            image = fit_photo(file, path.suffix, size, background=background)
            # Checked after decoding, so that a change while decoding is noticed.
            suspect = sha256 and current_status(file) != status
            changed = suspect and sha256_of(file) != sha256
    except (OSError, Unreadable) as error:
        raise DataError(f"{path} cannot be read", received=str(error)) from error
    if changed:
        raise DataError(
            f"{path} was changed since the manifest was made",
            expected=f"sha256 {sha256}",
            fix="create the manifest again",
        )
    return image


@names_wrong_kinds
def decode(
    manifest: Manifest,
    image_size: ImageSize,
    folder: str | Path,
    progress: ProgressCallback | None = None,
    background: str = "white",
) -> np.ndarray:
    """Decode every photo once, into `folder/images.npy`.

    The file is written atomically.

    Args:
        manifest: the photos.
        image_size: pixels, one number for a square or (height, width).
        folder: folder to write to, created if missing.
        progress: called as `progress(done, total)`.
        background: a CSS color, shown under transparent pixels.

    Returns:
        (photos, height, width, 3) uint8 in [0, 255], memory-mapped and read-only; row i is row i of
        `manifest.table`.

    Raises:
        DataError: if photos cannot be read or have changed, naming each of them; the folder cannot
            be written; or the color is unknown.

    Example:
        >>> from kpipe.data import decode, from_folder
        >>> decode(from_folder("photos"), 32, "decoded").shape
        (60, 32, 32, 3)
    """
    background_color(background)
    size = height_and_width(image_size)
    folder = Path(folder)
    paths, digests = manifest.table["path"], manifest.table["sha256"]

    def load(row: tuple[str, str]) -> np.ndarray | DataError:
        try:
            return load_unchanged(*row, manifest.statuses.get(row[0], ""), size, background)
        except DataError as error:
            return error

    errors = []
    shape = (len(paths), *size, 3)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    try:
        # Plain writes raise on a full disk; a memory map would kill the process.
        with replacing(folder / "images.npy") as temporary, temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for image in in_threads(load, list(zip(paths, digests, strict=True)), progress):
                if isinstance(image, DataError):
                    errors.append(image)
                else:
                    file.write(image.tobytes())
            if errors:
                raise _combined(errors)
    except OSError as error:
        raise DataError(
            f"the decoded photos cannot be written to {folder}",
            expected=f"room for {math.prod(shape) / 1e6:,.0f} MB",
            received=str(error),
        ) from error
    return np.load(folder / "images.npy", mmap_mode="r")


def _combined(errors: list[DataError]) -> DataError:
    shown = [
        printable(f"{error.what} ({error.received or error.expected})") for error in errors[:_SHOWN]
    ]
    more = [f"and {len(errors) - _SHOWN} more"] if len(errors) > _SHOWN else []
    return DataError(
        f"{len(errors)} photos of the manifest cannot be decoded",
        received="\n    ".join(shown + more),
        fix="create the manifest again: it sets aside what cannot be read",
    )
