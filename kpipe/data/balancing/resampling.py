"""A data set of other class frequencies, made once: rows repeated or left out.

    labels   -> positions in them
    manifest -> a manifest of other train rows, those of one photo one after another

What is drawn here stays. In training, `TrainingOptions(sampling=Sampling(...))` draws anew in each
epoch instead, so that under-sampling shows every photo over the epochs; the first epoch is this
draw.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import pandas as pd

from kpipe.data.balancing.sampling import Sampling, counted, spread
from kpipe.data.manifest import Manifest, problem_table

__all__ = ["augment_minority", "oversample", "undersample"]

Rows = TypeVar("Rows", np.ndarray, Manifest)


def oversample(photos: Rows, ratio: float = 1.0, seed: int = 0) -> Rows:
    """Repeat photos of small classes, each class brought to `ratio` times the largest at least.

    Args:
        photos: labels, (photos,) integers; or a split manifest, of which train rows are repeated.
            Decode the new manifest, not the old one.
        ratio: in (0, 1].
        seed: of the draw, where a class is not repeated a whole number of times.

    Returns:
        positions in the labels, int64 (n,), ascending; or a new manifest, whose problems name each
        photo that is repeated.

    Raises:
        DataError: labels that are not class indices, a class without a photo, no train split, or a
            ratio out of its range.
    """
    return _resampled(photos, Sampling("oversample", ratio), seed)


def undersample(photos: Rows, ratio: float = 1.0, seed: int = 0) -> Rows:
    """Leave out photos of large classes, each class cut to the smallest / `ratio` at most.

    Args:
        photos: labels, (photos,) integers; or a split manifest, of which train rows are left out.
            Decode the new manifest, not the old one.
        ratio: in (0, 1].
        seed: of the draw.

    Returns:
        positions in the labels, int64 (n,), ascending; or a new manifest, whose problems name each
        photo that is left out.

    Raises:
        DataError: as `oversample`.
    """
    return _resampled(photos, Sampling("undersample", ratio), seed)


def augment_minority(photos: Rows, ratio: float = 1.0, seed: int = 0) -> Rows:
    """Repeat photos of small classes as `oversample` does, to augment the repeats alone.

    Args:
        photos: labels, (photos,) integers; or a split manifest, of which train rows are repeated.
            Decode the new manifest, not the old one.
        ratio: in (0, 1].
        seed: of the draw, where a class is not repeated a whole number of times.

    Returns:
        positions in the labels, int64 (n,), ascending: the first of equal ones is the photo as it
        is, the others are to be augmented; or a new manifest, in which these are the rows of
        `table.duplicated("path")`. (`dataset` augments every row of a manifest; with
        `TrainingOptions(sampling=Sampling("augment_minority"))` the repeats alone.)

    Raises:
        DataError: as `oversample`.
    """
    return _resampled(photos, Sampling("augment_minority", ratio), seed)


def _resampled(photos: Rows, sampling: Sampling, seed: int) -> Rows:
    if isinstance(photos, Manifest):
        return _with_other_rows(photos, sampling, seed)  # type: ignore[return-value]
    return sampling.draw(photos, seed, 0)[0]


def _with_other_rows(manifest: Manifest, sampling: Sampling, seed: int) -> Manifest:
    rows, labels = manifest.rows("train"), manifest.labels("train")
    counted(labels, manifest.classes)
    # Drawn in the order of the content, so that the order of the rows does not matter.
    by_content = np.lexsort((labels, manifest.table["sha256"].to_numpy()[rows]))
    positions, _ = sampling.draw(labels[by_content], seed, 0)
    times = np.ones(len(manifest.table), np.int64)
    times[rows[by_content]] = np.bincount(positions, minlength=len(rows))
    table = manifest.table.iloc[spread(times)[0]].reset_index(drop=True)
    said = [
        (manifest.table["path"].iloc[row], sampling.method, _told(times[row]))
        for row in np.flatnonzero(times != 1)
    ]
    problems = pd.concat([manifest.problems, problem_table(said)], ignore_index=True)
    return Manifest(table, manifest.classes, problems)


def _told(times: int) -> str:
    return f"stands {times} times" if times else "left out"
