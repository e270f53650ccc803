"""Find what is wrong with a set of photos, and clean it.

problems   path, kind, detail:
           of files         empty file, not an image, undecodable, truncated, too many pixels,
                            missing file, unreadable file, wrong extension
           of photos        constant image, tiny image, absurd dimensions, unused range,
                            damaged photo, first frame
           of several       exact duplicate, near duplicate, same photo, two labels,
                            duplicates cross splits
           of classes       label spelling, several labels, folder as a class, class too small,
                            class without images, split without a class,
                            unusable class name
changes    path, change: what `cleaned()` does to the table
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kpipe.data.auditing.cleaning import clean
from kpipe.data.auditing.duplicates import duplicate_problems
from kpipe.data.auditing.spelling import Variant, several_labels, spelling_variants
from kpipe.data.image_info import CHANNELS, ImageInfo, photo_problems
from kpipe.data.manifest import Manifest, Problem, problem_table
from kpipe.data.near_duplicates.grouping import likeness
from kpipe.data.reading.image_cache import ImageCache
from kpipe.data.reading.scanning import ScanOptions, image_infos, similar, with_thumbnails
from kpipe.data.threads import ProgressCallback
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["Audit", "audit"]

# With fractions of 70, 15 and 15 %, fewer leave a single photo for validation and for test.
_FEW = 10
# Levels in [0, 255]: even a reduced photo of a plain wall varies by more.
_FLAT = 1.0
_TINY_SIDE, _TINY_SHARE = 32, 1 / 3
_LONG, _LONG_TIMES = 8.0, 4.0
# Folders around or beside the class folders, in lower case; not those that may be classes.
_FOLDERS = frozenset(
    (
        *("annotation", "annotations", "data", "dataset", "datasets", "image", "images", "img"),
        *("imgs", "jpegimages", "json", "label", "labels", "metadata", "photos", "pictures"),
        *("testing", "training", "val", "valid", "validation", "xml"),
    )
)
# Levels of 255 that 14-bit values in a 16-bit file reach, and 12-bit values in one of any format.
_DARK_GREY, _DARK = 64, 16


@dataclass(frozen=True, eq=False)
class Audit:
    """The findings of an audit.

    Args:
        problems: path, kind, detail; the path is empty for a problem of a class or the whole set.
        classes: a row per class: photos, share in [0, 1], and photos in each split.
        statistics: minimum, median and maximum of "width", "height" (pixels) and "aspect" (width /
            height); mean and deviation of "red", "green", "blue" in [0, 255]; and number of
            photos by "format" and by "mode".
        imbalance: photos of the largest class / photos of the smallest.
        photos: number of readable photos.
        changes: path, change: what `cleaned()` changes in the manifest's table.

    Example:
        >>> import shutil
        >>> from kpipe.data import audit, from_folder
        >>> for color in ("red", "green"):
        ...     _ = shutil.copytree(f"photos/{color}", f"more/{color}")
        >>> _ = shutil.copy("photos/red/00.png", "more/red/copy.png")
        >>> found = audit(from_folder("more"))
        >>> found.problems["kind"].tolist(), found.photos, len(found.cleaned())
        (['exact duplicate'], 37, 36)
    """

    problems: pd.DataFrame
    classes: pd.DataFrame
    statistics: Mapping[str, Mapping[str, float]]
    imbalance: float
    photos: int
    changes: pd.DataFrame
    _cleaned: pd.DataFrame

    def cleaned(self) -> pd.DataFrame:
        """Return the manifest's table with all `changes` applied."""
        return self._cleaned.copy()


@names_wrong_kinds
def audit(
    manifest: Manifest,
    *,
    cache: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> Audit:
    """Find what would harm training.

    Args:
        manifest: the photos; create it with `max_unreadable=None` to get all findings.
        cache: the SQLite file that the manifest was created with, so that no photo is read again.
        progress: called as `progress(done, total)` while photos are read.

    Example:
        >>> from kpipe.data import audit, from_folder
        >>> found = audit(from_folder("photos", max_unreadable=None))
        >>> found.imbalance, len(found.problems)
        (1.5, 0)
    """
    infos = image_infos(manifest.table, ScanOptions(cache=cache, progress=progress))
    earlier = list(manifest.problems[["path", "kind", "detail"]].itertuples(index=False, name=None))
    earlier += _file_problems(manifest.table, infos)
    photos = [info for info in infos if not info.kind]
    readable = np.array([not info.kind for info in infos], bool)
    table = manifest.table[readable].reset_index(drop=True)
    if "similar" not in table:
        table = table.assign(similar=similar(photos, cache))
    counts = Counter(table["label"])
    variants = spelling_variants(counts)
    spelling = {variant.label: variant.of for variant in variants if variant.certain}
    merged = table.assign(label=table["label"].replace(spelling))

    def likeness_of(rows: Sequence[int], others: Sequence[int]) -> np.ndarray:
        with ImageCache(cache) as images:
            one, two = (
                with_thumbnails([photos[row] for row in side], images) for side in (rows, others)
            )
        return likeness(one, two)

    found: list[Problem] = [
        *earlier,
        *_photo_problems(table, photos),
        *_unused_range(table, photos, cache),
        *duplicate_problems(merged, likeness_of),
        *_class_problems(Counter(merged["label"]), counts, variants),
        *_absent_from_splits(manifest),
    ]
    cleaned, changes = clean(table, problem_table(earlier), spelling)
    sizes = [counts[label] for label in manifest.classes if label in counts]
    return Audit(
        problems=problem_table(found),
        classes=_classes(manifest),
        statistics=_statistics(table, photos),
        imbalance=max(sizes) / min(sizes) if sizes else float("nan"),
        photos=len(table),
        changes=changes,
        _cleaned=cleaned,
    )


def _file_problems(table: pd.DataFrame, infos: Sequence[ImageInfo]) -> list[Problem]:
    """Problems that the manifest lacks, without a scan or when files have changed since."""
    rows = list(zip(table["path"], infos, strict=True))
    found = [(path, info.kind, info.detail) for path, info in rows if info.kind]
    if "format" not in table:
        photos = ((path, info) for path, info in rows if not info.kind)
        found += [(path, *one) for path, info in photos for one in photo_problems(path, info)]
    return found


def _photo_problems(table: pd.DataFrame, photos: Sequence[ImageInfo]) -> list[Problem]:
    width, height = (table[name].to_numpy(float) for name in ("width", "height"))
    short, long = np.minimum(width, height), np.maximum(width, height)
    tiny = min(_TINY_SIDE, _TINY_SHARE * np.median(short)) if len(short) else 0
    bound = max(_LONG, _LONG_TIMES * np.median(long / short)) if len(short) else 0
    deviations = _channels(photos)[:, 3:].max(axis=1, initial=0)
    rules = [
        ("tiny image", short < tiny, f"a side under {tiny:.0f} pixels"),
        ("absurd dimensions", long / short > bound, f"one side over {bound:.0f} times the other"),
        ("constant image", deviations < _FLAT, "one color all over"),
    ]
    return [
        (table["path"][row], kind, f"{table['width'][row]} x {table['height'][row]}: {detail}")
        for kind, offends, detail in rules
        for row in np.flatnonzero(offends)
    ]


def _unused_range(
    table: pd.DataFrame, photos: Sequence[ImageInfo], cache: str | Path | None
) -> list[Problem]:
    """Nearly black photos, such as 12-bit values in 16-bit files, but not constant images."""
    deep = np.array([photo.mode.startswith("I") for photo in photos], bool)
    limits = np.where(deep, _DARK_GREY, _DARK)
    means, deviations = np.split(_channels(photos), 2, axis=1)
    suspect = (means < limits[:, None]).all(axis=1) & (deviations >= _FLAT).any(axis=1)
    suspects: list[int] = np.flatnonzero(suspect).tolist()
    with ImageCache(cache) as images:
        found = with_thumbnails([photos[row] for row in suspects], images)
    brightest = {row: max(one.thumbnail) for row, one in zip(suspects, found, strict=True)}
    dark = {row: level for row, level in brightest.items() if level < limits[row]}
    problems: list[Problem] = []
    rows: list[int] = np.flatnonzero(deep).tolist()
    if rows and dark.keys() >= set(rows):
        level = max(dark[row] for row in rows)
        detail = f"{len(rows)} photos of 16 bits, none brighter than {level} of 255"
        problems.append(("", "unused range", detail))
        dark = {row: level for row, level in dark.items() if not deep[row]}
    return problems + [
        (table["path"][row], "unused range", f"nothing is brighter than {level} of 255")
        for row, level in dark.items()
    ]


def _class_problems(
    merged: Mapping[str, int], counts: Mapping[str, int], variants: Sequence[Variant]
) -> list[Problem]:
    spelling: list[Problem] = [
        (
            "",
            "label spelling",
            f"{variant.label!r} ({counts[variant.label]} photos) is"
            f"{'' if variant.certain else ' perhaps'} {variant.of!r} ({counts[variant.of]})",
        )
        for variant in variants
    ]
    spelling += [
        (
            "",
            "several labels",
            f"{label!r} ({counts[label]} photos) joins {' and '.join(map(repr, parts))}",
        )
        for label, parts in several_labels(counts).items()
    ]
    spelling += [
        ("", "folder as a class", f"{label!r} ({counts[label]} photos)")
        for label in sorted(counts)
        if label.casefold() in _FOLDERS
    ]
    few = [
        ("", "class too small", f"{label!r}: {count} photos, under {_FEW}")
        for label, count in sorted(merged.items())
        if count < _FEW
    ]
    return spelling + few


def _absent_from_splits(manifest: Manifest) -> list[Problem]:
    """Classes that a declared split lacks and that no photo without a split can fill."""
    counts = manifest.counts()
    if "" in counts:
        return []
    return [
        ("", "split without a class", f"{name!r}: no photo in {split}")
        for split in counts
        if counts[split].any()
        for name in counts.index[counts[split] == 0]
    ]


def _classes(manifest: Manifest) -> pd.DataFrame:
    counts = manifest.counts()
    photos = counts.sum(axis=1)
    share = photos / max(1, photos.sum())
    return pd.DataFrame({"photos": photos, "share": share}).join(counts)


def _statistics(table: pd.DataFrame, photos: Sequence[ImageInfo]) -> dict[str, dict[str, float]]:
    if table.empty:
        return {}
    sizes = {name: table[name].to_numpy(float) for name in ("width", "height")}
    sizes["aspect"] = sizes["width"] / sizes["height"]
    found: dict[str, dict[str, float]] = {
        name: {
            "minimum": float(values.min()),
            "median": float(np.median(values)),
            "maximum": float(values.max()),
        }
        for name, values in sizes.items()
    }
    means, deviations = np.split(_channels(photos), 2, axis=1)
    mean = means.mean(axis=0)
    # The deviation over all photos, with equal weight for each.
    deviation = np.sqrt((deviations**2 + means**2).mean(axis=0) - mean**2)
    for place, color in enumerate(("red", "green", "blue")):
        found[color] = {"mean": float(mean[place]), "deviation": float(deviation[place])}
    for name in ("format", "mode"):
        words = pd.Series([getattr(info, name) for info in photos], dtype="str").value_counts()
        found[name] = {str(word): int(count) for word, count in words.items()}
    return found


def _channels(photos: Sequence[ImageInfo]) -> np.ndarray:
    """Means and deviations, (photos, 6)."""
    joined = b"".join(info.channels for info in photos)
    return np.frombuffer(joined, np.float32).reshape(-1, CHANNELS).astype(float)
