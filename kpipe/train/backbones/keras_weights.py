"""The source of the pretrained weights of `keras.applications`.

    file := <KPIPE_WEIGHTS>/name if the environment variable is set, else downloaded by Keras

Keras downloads weights inside each constructor, and without a connection raises a bare Exception.
So the function that downloads is replaced while a constructor runs.
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
from kpipe.train.backbones.weights_files import FOLDER_VARIABLE, OTHER_WEIGHTS, mirrored_file

__all__ = ["fetching", "keras_files"]


@contextlib.contextmanager
def fetching(fetch: Callable[..., str]) -> Iterator[None]:
    """Let Keras call `fetch` for every file within the context, instead of downloading it."""
    original = file_utils.get_file
    file_utils.get_file = fetch
    try:
        yield
    finally:
        file_utils.get_file = original


def keras_files() -> Callable[..., str]:
    """Return a replacement for `keras.utils.get_file` that raises a WeightsError on failure."""
    folder = os.environ.get(FOLDER_VARIABLE)
    download = file_utils.get_file

    def fetch(fname: str, origin: str, **options: Any) -> str:
        digest = options.get("file_hash") or options.get("md5_hash")
        if folder:
            return str(_mirrored(Path(folder), fname, origin, digest))
        try:
            return str(download(fname, origin, **options))
        except Exception as error:  # Keras raises a bare Exception when a download fails
            raise WeightsError(
                f"the weights file {fname} could not be downloaded",
                expected=f"a connection to {origin}",
                received=str(error),
                fix=f"{OTHER_WEIGHTS}; or put the file {fname} from that address into a folder, "
                f"and set the environment variable {FOLDER_VARIABLE} to the folder",
            ) from error

    return fetch


def _mirrored(folder: Path, name: str, origin: str, digest: str | None) -> Path:
    path = mirrored_file(folder, name, origin)
    # Keras publishes MD5 digests, but none for some families: their files are not verified.
    kind = "sha256" if digest and len(digest) == 64 else "md5"
    if digest:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False))
        if found.hexdigest() != digest:
            raise WeightsError(
                f"the weights file {path} is not the one that Keras published",
                expected=f"{kind} {digest}",
                received=f"{kind} {found.hexdigest()}",
                fix=f"download {origin} again and save it there as {name}",
            )
    return path
