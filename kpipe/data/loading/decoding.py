"""Photos decoded one at a time, or all of them once, into one array on disk.

    images.npy := uint8 (photos, height, width, 3), row i of it is row i of the manifest's table

What their pixels are is said in `kpipe.pixels`.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np

from kpipe.atomic import replacing
from kpipe.data.manifest import Manifest
from kpipe.data.threads import ProgressCallback, in_threads
from kpipe.errors import DataError
from kpipe.pixels import Unreadable, background_color, fit_photo

__all__ = ["ImageSize", "decode", "height_and_width", "load_image", "load_unchanged"]

ImageSize = int | tuple[int, int]

_SHOWN = 10


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


def load_image(path: str | Path, image_size: ImageSize, background: str = "white") -> np.ndarray:
    """One photo as the models see it.

    Args:
        path: of a JPEG, PNG, BMP, GIF, WebP, TIFF or PPM file.
        image_size: pixels, one number for a square or (height, width).
        background: a CSS color, under transparent pixels.

    Returns:
        (height, width, 3) uint8 in [0, 255]: RGB, upright, the longer side cropped at its center.

    Raises:
        DataError: the file cannot be read, or no such color.
    """
    background_color(background)
    return load_unchanged(path, "", height_and_width(image_size), background)


def load_unchanged(
    path: str | Path, sha256: str, size: tuple[int, int], background: str
) -> np.ndarray:
    """`load_image`, refusing a file whose digest is not the one given (any, if empty)."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            image = fit_photo(file, path.suffix, size, background=background)
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
    return image


def decode(
    manifest: Manifest,
    image_size: ImageSize,
    folder: str | Path,
    progress: ProgressCallback | None = None,
    background: str = "white",
) -> np.ndarray:
    """Decode every photo once, into `folder/images.npy`.

    Written aside, then renamed: the file is whole or not there.

    Args:
        manifest: the photos.
        image_size: pixels, one number for a square or (height, width).
        folder: made if need be.
        progress: called as `progress(done, total)`.
        background: a CSS color, under transparent pixels.

    Returns:
        (photos, height, width, 3) uint8 in [0, 255], mapped from the file, read-only; row i is
        row i of `manifest.table`.

    Raises:
        DataError: photos that cannot be read any more, or were changed, each of them named; a
            folder that cannot be written; or no such color.
    """
    background_color(background)
    size = height_and_width(image_size)
    folder = Path(folder)
    paths, digests = manifest.table["path"], manifest.table["sha256"]

    def load(row: tuple[str, str]) -> np.ndarray | DataError:
        try:
            return load_unchanged(*row, size, background)
        except DataError as error:
            return error

    errors = []
    shape = (len(paths), *size, 3)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    try:
        # Plain writes, not a memory map: on a full disk these raise, a map kills the process.
        with replacing(folder / "images.npy") as temporary, temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for image in in_threads(load, list(zip(paths, digests, strict=True)), progress):
                if isinstance(image, DataError):
                    errors.append(image)
                else:
                    file.write(image.tobytes())
            if errors:
                raise _together(errors)
    except OSError as error:
        raise DataError(
            f"the decoded photos cannot be written to {folder}",
            expected=f"room for {math.prod(shape) / 1e6:,.0f} MB",
            received=str(error),
        ) from error
    return np.load(folder / "images.npy", mmap_mode="r")


def _together(errors: list[DataError]) -> DataError:
    shown = [f"{error.what} ({error.received or error.expected})" for error in errors[:_SHOWN]]
    more = [f"and {len(errors) - _SHOWN} more"] if len(errors) > _SHOWN else []
    return DataError(
        f"{len(errors)} photos of the manifest cannot be decoded",
        received="\n    ".join(shown + more),
        fix="make the manifest again: it sets aside what cannot be read",
    )
