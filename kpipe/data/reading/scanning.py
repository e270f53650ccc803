"""Read every listed file once.

    entries (path, label, split, further columns) -> Manifest

Files that cannot be read are set aside in `Manifest.problems`, with path and reason; too many of
them, or classes that cannot be learned, are an error.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from kpipe.class_names import refuse_class_names, unusable_class_names
from kpipe.data.file_status import trusted_status
from kpipe.data.image_info import (
    THUMBNAIL,
    UNREADABLE,
    ImageInfo,
    photo_problems,
    read_image_info,
)
from kpipe.data.manifest import COLUMNS, INFO_COLUMNS, Manifest, Problem, problem_table
from kpipe.data.near_duplicates.grouping import representatives
from kpipe.data.reading.image_cache import ImageCache
from kpipe.data.threads import ProgressCallback, in_threads
from kpipe.errors import DataError
from kpipe.pixels import SUFFIXES
from kpipe.printable import printable

__all__ = ["KnownDigests", "ScanOptions", "image_infos", "scan", "similar", "with_thumbnails"]

# From paths to the sha256 of those files whose content is known without reading them.
KnownDigests = Callable[[Sequence[str]], Mapping[str, str]]

_SHOWN = 10
# Files after which results are cached, so that an interrupted scan resumes there.
_SAVE_EVERY = 1000
_MEASURED = ("width", "height", "sha256", "format", "mode", "orientation")
_NUMBERS = ("width", "height", "orientation")


@dataclass(frozen=True)
class ScanOptions:
    """How to read files.

    Args:
        max_unreadable: largest fraction of unreadable files, in [0, 1]; None accepts any, and
            classes that cannot be learned too.
        cache: an SQLite file in which to cache what files hold.
        progress: called as `progress(done, total)`.
        known_digests: returns path -> sha256 of files that were hashed before and have not changed.
    """

    max_unreadable: float | None = None
    cache: str | Path | None = None
    progress: ProgressCallback | None = None
    known_digests: KnownDigests | None = None


def scan(
    entries: pd.DataFrame,
    options: ScanOptions,
    *,
    source: str,
    classes: Iterable[str],
    problems: Sequence[Problem],
) -> Manifest:
    """Read the listed files and return a manifest of those that hold photos.

    Args:
        entries: path, label, split of each file, and further columns, which are kept as text.
        options: how to read the files.
        source: name of the folder or table, for errors.
        classes: declared class names, with or without files.
        problems: what was set aside before.

    Raises:
        DataError: if too many files are unreadable, there is no photo, a single class, or a class
            with one photo.
    """
    infos, statuses = _read(entries["path"].tolist(), options)
    found = [*problems, *_file_problems(entries["path"], infos)]
    readable = [not info.kind for info in infos]
    if options.max_unreadable is not None:
        _refuse_unreadable(found, sum(readable), options.max_unreadable, source)
    photos = [info for info in infos if not info.kind]
    measured = {name: [getattr(info, name) for info in photos] for name in _MEASURED}
    table = entries[np.array(readable, bool)].assign(
        **measured, similar=similar(photos, options.cache)
    )
    present = tuple(sorted(set(table["label"])))
    found += [
        ("", "class without images", repr(name)) for name in sorted(set(classes) - set(present))
    ]
    found += [("", "unusable class name", repr(name)) for name in unusable_class_names(present)]
    if options.max_unreadable is not None:
        refuse_class_names(present, source, DataError)
        _refuse_classes(Counter(table["label"]), source, found)
    first = (*COLUMNS, *INFO_COLUMNS)
    table = table[[*first, *(name for name in table if name not in first)]].reset_index(drop=True)
    kinds = {name: "int64" if name in _NUMBERS else "str" for name in table}
    return Manifest(table.astype(kinds), present, problem_table(found), statuses)


def similar(photos: Sequence[ImageInfo], cache: str | Path | None = None) -> list[str]:
    """Return `representatives` of readable photos, computed once for the same contents."""
    contents = {photo.sha256: photo for photo in photos}
    digests = sorted(contents)
    place = {digest: number for number, digest in enumerate(digests)}
    key = f"similar {hashlib.sha256(''.join(digests).encode()).hexdigest()}"
    with ImageCache(cache) as images:
        result = images.result(key)
        if result is None:
            found = representatives(
                with_thumbnails([contents[digest] for digest in digests], images)
            )
            result = np.array([place[digest] for digest in found], "<i4").tobytes()
            images.add_result(key, result)
    representative = np.frombuffer(result, "<i4")
    return [digests[representative[place[photo.sha256]]] for photo in photos]


def with_thumbnails(photos: Sequence[ImageInfo], images: ImageCache) -> list[ImageInfo]:
    """Return the same photos with the cached thumbnails."""
    cached = images.thumbnails({photo.sha256 for photo in photos if not photo.thumbnail})
    # If the cache has just lost a thumbnail, use a flat one, which resembles no other.
    flat = bytes(THUMBNAIL**2)
    return [
        photo if photo.thumbnail else replace(photo, thumbnail=cached.get(photo.sha256, flat))
        for photo in photos
    ]


def image_infos(table: pd.DataFrame, options: ScanOptions) -> list[ImageInfo]:
    """Return what the photo of each row (path, sha256) holds, read if its content is not cached."""
    rows = list(zip(table["path"], table["sha256"], strict=True))
    with ImageCache(options.cache) as images:
        known = images.infos({digest for _, digest in rows})
    paths = [path for path, digest in rows if digest not in known]
    read = dict(zip(paths, _read(paths, options)[0], strict=True))
    return [known[digest] if digest in known else read[path] for path, digest in rows]


def _read(paths: Sequence[str], options: ScanOptions) -> tuple[list[ImageInfo], dict[str, str]]:
    """Return what each file holds, and path -> trusted status for its sha256."""
    # A table may name a file in many rows.
    files = list(dict.fromkeys(paths))
    with ImageCache(options.cache) as images:
        statuses = {path: status for path in files if (status := trusted_status(path))}
        digests = images.digests(statuses)
        cached = images.infos(set(digests.values()))
        found = {path: cached[digest] for path, digest in digests.items() if digest in cached}
        unread = [path for path in files if path not in found]
        if options.known_digests is not None:
            digests |= options.known_digests([path for path in unread if path in statuses])
        done = len(files) - len(unread)

        def read(path: str) -> ImageInfo:
            known = {"status": statuses.get(path, ""), "sha256": digests.get(path, "")}
            return read_image_info(path, images.info, **known)

        def progress(place: int, _: int) -> None:
            if options.progress is not None:
                options.progress(done + place, len(files))

        new: list[tuple[str, str, ImageInfo]] = []
        for path, info in zip(unread, in_threads(read, unread, progress), strict=True):
            found[path] = info
            new.append((path, statuses.get(path, ""), info))
            if len(new) == _SAVE_EVERY:
                images.add(new)
                new.clear()
        images.add(new)
    return [found[path] for path in paths], statuses


def _file_problems(paths: Iterable[str], infos: Sequence[ImageInfo]) -> list[Problem]:
    found = []
    folders: dict[str, dict[str, str]] = {}
    for path, info in zip(paths, infos, strict=True):
        if info.kind == "missing file":
            found.append((path, info.kind, info.detail + _likely_name(path, folders)))
        elif info.kind:
            found.append((path, info.kind, info.detail))
        else:
            found += [(path, *problem) for problem in photo_problems(path, info)]
    return found


def _likely_name(path: str, folders: dict[str, dict[str, str]]) -> str:
    """A hint at a photo of that name with an extension."""
    folder, name = os.path.split(path)
    if folder not in folders:
        try:
            names = os.listdir(folder)
        except OSError:
            names = []
        photos = sorted(photo for photo in names if photo.lower().endswith(SUFFIXES))
        folders[folder] = {os.path.splitext(photo)[0]: photo for photo in photos}
    known = folders[folder]
    photo = known.get(name) or known.get(os.path.splitext(name)[0])
    return f"; did you mean {photo}?" if photo else ""


def _refuse_unreadable(problems: list[Problem], readable: int, allowed: float, source: str) -> None:
    bad = [problem for problem in problems if problem[1] in UNREADABLE]
    if not bad or len(bad) <= allowed * (len(bad) + readable):
        return
    shown = [printable(f"{path} ({kind}: {detail})") for path, kind, detail in bad[:_SHOWN]]
    more = [f"and {len(bad) - _SHOWN} more"] if len(bad) > _SHOWN else []
    raise DataError(
        f"{len(bad)} of {len(bad) + readable} photos of {source} cannot be read",
        expected=f"at most {allowed:.0%} unreadable files",
        received="\n    ".join(shown + more),
        fix="repair or remove these files, or raise max_unreadable",
    )


def _refuse_classes(counts: dict[str, int], source: str, problems: list[Problem]) -> None:
    if not counts:
        kinds = pd.Series([kind for _, kind, _ in problems], dtype="str").value_counts()
        received = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
        raise DataError(
            f"no images in {source}",
            expected="JPEG, PNG, BMP, GIF, WebP, TIFF or PPM files",
            received=received or "nothing",
            fix="name the folder that holds the class folders, or the root of the table's files",
        )
    if len(counts) == 1:
        raise DataError(
            f"a single class in {source}",
            expected="at least two classes",
            received=", ".join(f"{name!r} with {count} images" for name, count in counts.items()),
            fix="put each class in a separate folder, or label the classes in the table",
        )
    lonely = sorted(name for name, count in counts.items() if count == 1)
    if lonely:
        raise DataError(
            f"one image only in class {', '.join(map(repr, lonely))} of {source}",
            expected="enough images of each class to train, validate and test on",
            fix="add photos of it, or leave the class out",
        )
