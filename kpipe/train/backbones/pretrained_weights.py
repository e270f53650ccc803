"""Where the pretrained files of `keras.applications` come from.

    a file := <KPIPE_WEIGHTS>/name, where the variable names a folder, else Keras' own download

Keras fetches its weights inside each constructor. In a closed network that ends in a bare
exception, so the one function that fetches is replaced while a constructor runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kpipe.errors import WeightsError
from kpipe.keras_internals import file_utils

__all__ = ["FOLDER_VARIABLE", "fetching", "keras_files"]

FOLDER_VARIABLE = "KPIPE_WEIGHTS"


@contextlib.contextmanager
def fetching(fetch: Callable[..., str]) -> Iterator[None]:
    """Within the context, Keras asks `fetch` for every file instead of downloading it."""
    original = file_utils.get_file
    file_utils.get_file = fetch
    try:
        yield
    finally:
        file_utils.get_file = original


def keras_files() -> Callable[..., str]:
    """A stand-in for `keras.utils.get_file` that never ends in random weights or a bare error."""
    folder = os.environ.get(FOLDER_VARIABLE)
    download = file_utils.get_file

    def fetch(fname: str, origin: str, **options: Any) -> str:
        digest = options.get("file_hash") or options.get("md5_hash")
        if folder:
            return str(_mirrored(Path(folder), fname, origin, digest))
        try:
            return str(download(fname, origin, **options))
        except Exception as error:  # Keras raises bare Exception where a download fails
            raise WeightsError(
                f"the weights file {fname} could not be downloaded",
                expected=f"a connection to {origin}",
                received=str(error),
                fix=f"put the file {fname} from that address into a folder, and let the "
                f"environment variable {FOLDER_VARIABLE} name the folder",
            ) from error

    return fetch


def _mirrored(folder: Path, name: str, origin: str, digest: str | None) -> Path:
    path = folder / name
    if not path.is_file():
        raise WeightsError(
            f"the weights file {name} is not in the folder that {FOLDER_VARIABLE} names",
            expected=str(path),
            fix=f"download {origin} elsewhere and put it there as {name}",
        )
    # Keras publishes MD5 digests, and none for some families; those files are taken as they are.
    kind = "sha256" if digest and len(digest) == 64 else "md5"
    if digest:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False))
        if found.hexdigest() != digest:
            raise WeightsError(
                f"the weights file {path} is not the one that Keras published",
                expected=f"{kind} {digest}",
                received=f"{kind} {found.hexdigest()}",
                fix=f"download {origin} again and put it there as {name}",
            )
    return path
