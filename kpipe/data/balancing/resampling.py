"""One draw of a `Sampling`, applied to labels or to a manifest.

labels   -> positions in them
manifest -> a manifest with other train rows, the repeats of a photo next to each other
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
import pandas as pd

from kpipe.data.balancing.class_counts import count_classes
from kpipe.data.balancing.sampling import Sampling, repeat_positions
from kpipe.data.manifest import Manifest, problem_table

__all__ = ["Rows", "resample"]

Rows = TypeVar("Rows", np.ndarray, Manifest)


def resample(photos: Rows, sampling: Sampling, seed: int) -> Rows:
    """Draw labels or train rows as the first epoch of a training run does."""
    if isinstance(photos, Manifest):
        return _resample_manifest(photos, sampling, seed)  # type: ignore[return-value]
    return sampling.draw(photos, seed, 0)[0]


def _resample_manifest(manifest: Manifest, sampling: Sampling, seed: int) -> Manifest:
    rows, labels = manifest.rows("train"), manifest.labels("train")
    count_classes(labels, manifest.classes)
    # Drawn in the order of the content, so that the order of the rows does not matter.
    by_content = np.lexsort((labels, manifest.table["sha256"].to_numpy()[rows]))
    positions, _ = sampling.draw(labels[by_content], seed, 0)
    times = np.ones(len(manifest.table), np.int64)
    times[rows[by_content]] = np.bincount(positions, minlength=len(rows))
    table = manifest.table.iloc[repeat_positions(times)[0]].reset_index(drop=True)
    changed = [
        (
            manifest.table["path"].iloc[row],
            sampling.method,
            f"appears {times[row]} times" if times[row] else "left out",
        )
        for row in np.flatnonzero(times != 1)
    ]
    problems = pd.concat([manifest.problems, problem_table(changed)], ignore_index=True)
    return replace(manifest, table=table, problems=problems)
