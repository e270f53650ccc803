"""Every listed photo read once.

    entries (path, label, split, further columns) -> Manifest

A photo that cannot be read is set aside in `Manifest.problems`, by path and reason; too many of
them, or classes that cannot be learned, are an error.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from kpipe.data.image_info import THUMBNAIL, UNREADABLE, ImageInfo, read_facts, wrong_extension
from kpipe.data.manifest import COLUMNS, FURTHER_FACTS, Manifest, Problem, problem_table
from kpipe.data.near_duplicates.grouping import representatives
from kpipe.data.reading.image_cache import ImageCache, file_status
from kpipe.data.threads import ProgressCallback, in_threads
from kpipe.errors import DataError

__all__ = ["facts_of", "facts_of_table", "scan", "similar", "with_thumbnails"]

_SHOWN = 10
# Files after which what was found is kept, so that a scan cut off goes on from there.
_KEEP_EVERY = 1000
_MEASURED = ("width", "height", "sha256", "format", "mode", "orientation")
_NUMBERS = ("width", "height", "orientation")


def scan(
    entries: pd.DataFrame,
    *,
    source: str,
    classes: Iterable[str],
    problems: Sequence[Problem],
    max_unreadable: float | None,
    cache: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> Manifest:
    """Read the listed files and make a manifest of those that hold photos.

    Args:
        entries: path, label, split of each file, and further columns that are carried as text.
        source: what to call the folder or table in an error.
        classes: names that were declared, with or without files.
        problems: what was set aside before.
        max_unreadable: largest share of unreadable files, in [0, 1]; None refuses nothing, neither
            these nor classes that cannot be learned.
        cache: an SQLite file in which to remember what files hold.
        progress: called as `progress(done, total)`.

    Raises:
        DataError: too many unreadable files, no photo, a single class, a class with one photo.
    """
    paths = entries["path"].tolist()
    facts = facts_of(paths, cache, progress)
    found = [*problems, *_told(paths, facts)]
    kept = [not fact.kind for fact in facts]
    if max_unreadable is not None:
        _refuse_unreadable(found, sum(kept), max_unreadable, source)
    photos = [fact for fact in facts if not fact.kind]
    measured = {name: [getattr(fact, name) for fact in photos] for name in _MEASURED}
    table = entries[np.array(kept, bool)].assign(**measured, similar=similar(photos, cache))
    present = tuple(sorted(set(table["label"])))
    found += [
        ("", "class without images", repr(name)) for name in sorted(set(classes) - set(present))
    ]
    if max_unreadable is not None:
        _refuse_classes(Counter(table["label"]), source, found)
    first = (*COLUMNS, *FURTHER_FACTS)
    table = table[[*first, *(name for name in table if name not in first)]].reset_index(drop=True)
    kinds = {name: "int64" if name in _NUMBERS else "str" for name in table}
    return Manifest(table.astype(kinds), present, problem_table(found))


def similar(photos: Sequence[ImageInfo], cache: str | Path | None = None) -> list[str]:
    """`representatives` of the photos, worked out once for the same contents.

    Args:
        photos: readable ones, in any order.
        cache: an SQLite file in which to remember it.
    """
    digests = sorted({photo.sha256 for photo in photos})
    place = {digest: number for number, digest in enumerate(digests)}
    question = f"similar {hashlib.sha256(''.join(digests).encode()).hexdigest()}"
    with ImageCache(cache) as remembered:
        answer = remembered.answer(question)
        if answer is None:
            names = [photo.sha256 for photo in photos]
            whole = with_thumbnails(photos, remembered)
            found = dict(zip(names, representatives(whole), strict=True))
            answer = np.array([place[found[digest]] for digest in digests], "<i4").tobytes()
            remembered.keep(question, answer)
    representative = np.frombuffer(answer, "<i4")
    return [digests[representative[place[photo.sha256]]] for photo in photos]


def with_thumbnails(photos: Sequence[ImageInfo], cache: ImageCache) -> list[ImageInfo]:
    """The same facts, with the thumbnails that the memory holds."""
    kept = cache.thumbnails({photo.sha256 for photo in photos if not photo.thumbnail})
    # Lost with a memory that was damaged this moment, a thumbnail is like no other.
    flat = bytes(THUMBNAIL**2)
    return [
        photo if photo.thumbnail else replace(photo, thumbnail=kept.get(photo.sha256, flat))
        for photo in photos
    ]


def facts_of(
    paths: Sequence[str],
    cache: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> list[ImageInfo]:
    """What each file holds, read where it is not remembered.

    Args:
        paths: of the files, absolute.
        cache: an SQLite file in which to remember it.
        progress: called as `progress(done, total)`.
    """
    with ImageCache(cache) as remembered:
        statuses = {path: file_status(path) for path in paths}
        digests = remembered.digests(statuses)
        known = remembered.facts(set(digests.values()))
        found = {path: known[digest] for path, digest in digests.items() if digest in known}
        unread = [path for path in statuses if path not in found]
        done = len(paths) - len(unread)

        def read(path: str) -> ImageInfo:
            return read_facts(path, remembered.content)

        def further(place: int, _: int) -> None:
            if progress is not None:
                progress(done + place, len(paths))

        news: list[tuple[str, str, ImageInfo]] = []
        for path, facts in zip(unread, in_threads(read, unread, further), strict=True):
            found[path] = facts
            news.append((path, statuses[path], facts))
            if len(news) == _KEEP_EVERY:
                remembered.remember(news)
                news.clear()
        remembered.remember(news)
    return [found[path] for path in paths]


def facts_of_table(
    table: pd.DataFrame,
    cache: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> list[ImageInfo]:
    """What each row's photo holds, read where its content is not remembered.

    Args:
        table: path and sha256 of each photo.
        cache: an SQLite file in which to remember it.
        progress: called as `progress(done, total)`.
    """
    digests = table["sha256"].tolist()
    with ImageCache(cache) as remembered:
        known = remembered.facts(set(digests))
    rows = list(zip(table["path"], digests, strict=True))
    paths = [path for path, digest in rows if digest not in known]
    read = dict(zip(paths, facts_of(paths, cache, progress) if paths else [], strict=True))
    return [known[digest] if digest in known else read[path] for path, digest in rows]


def _told(paths: Sequence[str], facts: Sequence[ImageInfo]) -> list[Problem]:
    found = []
    for path, fact in zip(paths, facts, strict=True):
        if fact.kind:
            found.append((path, fact.kind, fact.detail))
        elif lie := wrong_extension(path, fact.format):
            found.append((path, "wrong extension", lie))
    return found


def _refuse_unreadable(problems: list[Problem], readable: int, allowed: float, source: str) -> None:
    bad = [problem for problem in problems if problem[1] in UNREADABLE]
    if not bad or len(bad) <= allowed * (len(bad) + readable):
        return
    shown = [f"{path} ({kind}: {detail})" for path, kind, detail in bad[:_SHOWN]]
    more = [f"and {len(bad) - _SHOWN} more"] if len(bad) > _SHOWN else []
    raise DataError(
        f"{len(bad)} of {len(bad) + readable} photos of {source} cannot be read",
        expected=f"at most {allowed:.0%} of them",
        received="\n    ".join(shown + more),
        fix="mend or remove these files, or raise max_unreadable",
    )


def _refuse_classes(counts: dict[str, int], source: str, problems: list[Problem]) -> None:
    if not counts:
        kinds = pd.Series([kind for _, kind, _ in problems], dtype="str").value_counts()
        received = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
        raise DataError(
            f"no images in {source}",
            expected="JPEG, PNG, BMP, GIF, WebP, TIFF or PPM files",
            received=received or "nothing",
            fix="name the folder that holds the class folders, or that the table's files are under",
        )
    if len(counts) == 1:
        raise DataError(
            f"a single class in {source}",
            expected="at least two",
            received=", ".join(f"{name!r} with {count} images" for name, count in counts.items()),
            fix="give each class a folder of its own, or a label of its own in the table",
        )
    lonely = sorted(name for name, count in counts.items() if count == 1)
    if lonely:
        raise DataError(
            f"one image only in class {', '.join(map(repr, lonely))} of {source}",
            expected="enough images of each class to train, validate and test on",
            fix="add photos of it, or leave the class out",
        )
