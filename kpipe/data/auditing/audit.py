"""What is wrong with a set of photos, and what a cleaned one would be.

problems   path, kind, detail:
           of files         empty file, not an image, undecodable, truncated, too many pixels,
                            missing file, unreadable file, wrong extension
           of photos        constant image, tiny image, absurd dimensions
           of several       exact duplicate, near duplicate, same photo, two labels,
                            duplicates cross splits
           of classes       label spelling, class too small, class without images
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
from kpipe.data.auditing.spelling import Variant, spelling_variants
from kpipe.data.image_info import CHANNELS, ImageInfo, wrong_extension
from kpipe.data.manifest import Manifest, Problem, problem_table
from kpipe.data.near_duplicates.grouping import alikeness
from kpipe.data.reading.image_cache import ImageCache
from kpipe.data.reading.scanning import facts_of_table, similar, with_thumbnails
from kpipe.data.threads import ProgressCallback

__all__ = ["Audit", "audit"]

# At shares of 70, 15 and 15 %, fewer leave one photo to validate and one to test on.
_FEW = 10
# Levels in [0, 255]: what a camera sees of a wall varies by more, even when shrunk.
_FLAT = 1.0
_TINY_SIDE, _TINY_SHARE = 32, 1 / 3
_LONG, _LONG_TIMES = 8.0, 4.0


@dataclass(frozen=True, eq=False)
class Audit:
    """What was found.

    Args:
        problems: path, kind, detail; the path is empty where a class or the whole set is meant.
        classes: a row per class: photos, share in [0, 1], and photos of each split.
        statistics: minimum, median and maximum of "width", "height" (pixels) and "aspect" (width /
            height); mean and deviation of "red", "green", "blue" in [0, 255]; and number of
            photos by "format" and by "mode".
        imbalance: photos of the largest class / photos of the smallest.
        photos: number of readable photos.
        changes: path, change: what makes the table `cleaned()` out of the manifest's.
    """

    problems: pd.DataFrame
    classes: pd.DataFrame
    statistics: Mapping[str, Mapping[str, float]]
    imbalance: float
    photos: int
    changes: pd.DataFrame
    _cleaned: pd.DataFrame

    def cleaned(self) -> pd.DataFrame:
        """The manifest's table without what `changes` leaves out, under one spelling a label."""
        return self._cleaned.copy()


def audit(
    manifest: Manifest,
    *,
    cache: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> Audit:
    """Look for what would spoil a training.

    Args:
        manifest: made with `max_unreadable=None`, so that nothing stops at the first finding.
        cache: the SQLite file that the manifest was made with, so that no photo is read again.
        progress: called as `progress(done, total)` while photos are read.
    """
    every = facts_of_table(manifest.table, cache, progress)
    told = list(manifest.problems[["path", "kind", "detail"]].itertuples(index=False, name=None))
    told += _of_files(manifest.table, every)
    facts = [fact for fact in every if not fact.kind]
    readable = np.array([not fact.kind for fact in every], bool)
    table = manifest.table[readable].reset_index(drop=True)
    if "similar" not in table:
        table = table.assign(similar=similar(facts, cache))
    counts = Counter(table["label"])
    variants = spelling_variants(counts)
    spelt = {variant.label: variant.of for variant in variants if variant.certain}
    merged = table.assign(label=table["label"].replace(spelt))

    def alike(rows: Sequence[int], others: Sequence[int]) -> np.ndarray:
        with ImageCache(cache) as remembered:
            one, two = (
                with_thumbnails([facts[row] for row in side], remembered) for side in (rows, others)
            )
        return alikeness(one, two)

    found: list[Problem] = [
        *told,
        *_of_photos(table, facts),
        *duplicate_problems(merged, alike),
        *_of_classes(Counter(merged["label"]), counts, variants),
    ]
    cleaned, changes = clean(table, problem_table(told), spelt)
    sizes = [counts[label] for label in manifest.classes if label in counts]
    return Audit(
        problems=problem_table(found),
        classes=_classes(manifest),
        statistics=_statistics(table, facts),
        imbalance=max(sizes) / min(sizes) if sizes else float("nan"),
        photos=len(table),
        changes=changes,
        _cleaned=cleaned,
    )


def _of_files(table: pd.DataFrame, facts: Sequence[ImageInfo]) -> list[Problem]:
    """What a manifest that was made elsewhere, or of files that changed since, does not tell."""
    rows = list(zip(table["path"], facts, strict=True))
    found = [(path, fact.kind, fact.detail) for path, fact in rows if fact.kind]
    if "format" not in table:
        lies = ((path, wrong_extension(path, fact.format)) for path, fact in rows if fact.format)
        found += [(path, "wrong extension", lie) for path, lie in lies if lie]
    return found


def _of_photos(table: pd.DataFrame, facts: Sequence[ImageInfo]) -> list[Problem]:
    width, height = (table[name].to_numpy(float) for name in ("width", "height"))
    short, long = np.minimum(width, height), np.maximum(width, height)
    tiny = min(_TINY_SIDE, _TINY_SHARE * np.median(short)) if len(short) else 0
    bound = max(_LONG, _LONG_TIMES * np.median(long / short)) if len(short) else 0
    deviations = _channels(facts)[:, 3:].max(axis=1, initial=0)
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


def _of_classes(
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
    few = [
        ("", "class too small", f"{label!r}: {count} photos, under {_FEW}")
        for label, count in sorted(merged.items())
        if count < _FEW
    ]
    return spelling + few


def _classes(manifest: Manifest) -> pd.DataFrame:
    counts = manifest.counts()
    photos = counts.sum(axis=1)
    share = photos / max(1, photos.sum())
    return pd.DataFrame({"photos": photos, "share": share}).join(counts)


def _statistics(table: pd.DataFrame, facts: Sequence[ImageInfo]) -> dict[str, dict[str, float]]:
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
    means, deviations = np.split(_channels(facts), 2, axis=1)
    mean = means.mean(axis=0)
    # Of all photos together, each counting as one.
    deviation = np.sqrt((deviations**2 + means**2).mean(axis=0) - mean**2)
    for place, color in enumerate(("red", "green", "blue")):
        found[color] = {"mean": float(mean[place]), "deviation": float(deviation[place])}
    for name in ("format", "mode"):
        words = pd.Series([getattr(fact, name) for fact in facts], dtype="str").value_counts()
        found[name] = {str(word): int(count) for word, count in words.items()}
    return found


def _channels(facts: Sequence[ImageInfo]) -> np.ndarray:
    """(photos, 6) means and deviations."""
    joined = b"".join(fact.channels for fact in facts)
    return np.frombuffer(joined, np.float32).reshape(-1, CHANNELS).astype(float)
