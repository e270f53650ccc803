"""Features computed in one pass over photos, and written so that a kill loses one view at most.

for each view, and for validation:
    photos -> stem -> features.npy, streamed; labels.npy, weights.npy, bounds.npy
    all of it in a folder aside -> renamed

Trainings that need the same features may share a folder, also at the same time: each writes aside
for itself, and the first to be done serves all.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kpipe.atomic import flush
from kpipe.errors import TrainingError
from kpipe.ownership import claim
from kpipe.train.transfer.feature_cache import COLUMNS, FeaturePlan, Features, view_name

__all__ = ["extract_features", "forget_unused", "weights_digest"]

_PART = ".part"
_Told = Callable[[int, int], None]
_Names = Callable[[int], Sequence[str]]
_Describe = Callable[[int, int], Sequence[str]]


def extract_features(
    stem: keras.Model,
    data: Callable[[int], tf.data.Dataset],
    validation: tf.data.Dataset | None,
    *,
    steps_per_epoch: int,
    plan: FeaturePlan,
    folder: str | Path,
    batch_names: _Describe | None = None,
    progress: _Told | None = None,
) -> Features:
    """Run the stem over the training data's first epochs and over the validation data, once each.

    The stem runs in inference mode, so that dropout and stochastic depth inside of it are off.
    Each view is written aside and renamed. Called again with the same folder, it makes the views
    that are missing.

    Args:
        stem: of `split_frozen`.
        data: as for `fit`: first epoch -> an endless dataset of images, labels and maybe weights.
        validation: a finite dataset, or None.
        steps_per_epoch: batches in an epoch.
        plan: which features to keep.
        folder: of these features alone; the caller names it by all that `data` depends on.
        batch_names: epoch, batch -> the names of its photos, for an error about that batch.
        progress: called as `progress(done, total)`, in batches.

    Raises:
        TrainingError: the folder holds features of another stem, data without labels or with too
            few batches, features that are not finite, or a disk without room for them.
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)
    for left in folder.glob(f"*{_PART}"):
        if _unused(left, hours=1):
            shutil.rmtree(left, ignore_errors=True)
    for name, given in (("training", data(0)), ("validation", validation)):
        if given is not None and not isinstance(given.element_spec, tuple):
            raise TrainingError(
                f"the {name} data has no labels to keep beside the features",
                expected="(images, labels) or (images, labels, weights)",
                received=str(given.element_spec),
            )
    identity = _identity(stem, steps_per_epoch, plan)
    claim(folder / "about.json", identity, "other features", error=TrainingError)
    held = int(validation.cardinality()) if validation is not None else 0
    total = plan.views * steps_per_epoch + max(held, 0)
    writer = _Writer(folder, stem, plan.dtype, total, progress)
    for number in range(plan.views):
        if not writer.skips(view_name(number), steps_per_epoch):
            epoch = data(number).take(steps_per_epoch)
            names = partial(batch_names, number) if batch_names is not None else None
            writer.write(view_name(number), epoch, steps_per_epoch, names)
    if validation is not None and not writer.skips("validation", max(held, 0)):
        writer.write("validation", validation, None)
    return Features(folder, plan)


def forget_unused(folder: Path) -> None:
    """Removes features that no training has asked for in two weeks.

    Args:
        folder: of folders that were each given to `extract_features`; it may be missing.
    """
    for kept in folder.glob("*/"):
        if _unused(kept, hours=14 * 24):
            shutil.rmtree(kept, ignore_errors=True)


def _unused(folder: Path, hours: float) -> bool:
    """Whether nothing in a folder, nor itself, was touched in that time."""
    try:
        last = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except OSError:  # another training has just finished or removed it
        return False
    return time.time() - last > 3600 * hours


def weights_digest(model: keras.Model) -> str:
    """The sha256 of a model's weights, in its order."""
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return digest.hexdigest()


def _identity(stem: keras.Model, steps: int, plan: FeaturePlan) -> dict[str, str]:
    return {
        "weights of the frozen part": weights_digest(stem),
        "shape": str(tuple(stem.output.shape)),
        "steps_per_epoch": str(steps),
        "dtype": plan.dtype,
    }


class _Writer:
    """Writes parts, each whole or not at all."""

    def __init__(
        self, folder: Path, stem: keras.Model, dtype: str, total: int, progress: _Told | None
    ) -> None:
        self._folder = folder
        self._stem = tf.function(lambda x: stem(x, training=False), reduce_retracing=True)
        self._shape = tuple(stem.output.shape[1:])
        self._dtype = np.dtype(dtype)
        self._done, self._total, self._progress = 0, total, progress

    def skips(self, name: str, batches: int) -> bool:
        """Whether a part is there already; its batches then count as done."""
        there = (self._folder / name).exists()
        if there:
            self._tell(batches)
        return there

    def write(
        self, name: str, data: Iterable[Any], batches: int | None, names: _Names | None = None
    ) -> None:
        """Makes one part, of so many batches if a number is given; `names` of a batch's photos."""
        aside = self._folder / f"{name}-{secrets.token_hex(4)}{_PART}"
        aside.mkdir()
        try:
            others, sizes = self._write_features(aside / "features.npy", name, data, names)
            if len(sizes) != (batches or len(sizes)) or not sizes:
                raise TrainingError(
                    f"the data of {name} ended early",
                    expected=f"{batches or 'some'} batches",
                    received=str(len(sizes)),
                    fix="let training data go on without end, as for fit",
                )
            for place, kind in enumerate(COLUMNS[1:]):
                if others and len(others[0]) > place:
                    column = np.concatenate([batch[place] for batch in others])
                    np.save(aside / f"{kind}.npy", column)
            ends = np.cumsum(sizes, dtype=np.int64)
            np.save(aside / "bounds.npy", np.stack([ends - sizes, ends], -1))
            try:
                aside.rename(self._folder / name)
            except OSError:
                if not (self._folder / name).exists():
                    raise
                # Another training was done first, with the same content.
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _write_features(
        self, path: Path, part: str, data: Iterable[Any], names: _Names | None
    ) -> tuple[list[list[np.ndarray]], list[int]]:
        """Streams the features into a file; what goes with them, and the size of each batch."""
        others: list[list[np.ndarray]] = []
        sizes: list[int] = []
        # Plain writes, not a memory map: on a full disk these raise, a map kills the process.
        with path.open("wb") as file:
            self._write_header(file, 0)
            for images, *rest in data:
                if not sizes:
                    self._refuse_full_disk(len(images))
                with np.errstate(over="ignore"):  # told as an error of ours
                    features = self._stem(images).numpy().astype(self._dtype, copy=False)
                broken = ~np.isfinite(features).reshape(len(features), -1).all(axis=1)
                if broken.any():
                    shown = names(len(sizes)) if names is not None else range(len(features))
                    raise TrainingError(
                        f"features of batch {len(sizes)} of {part} are not finite",
                        expected=f"numbers that {self._dtype} can hold",
                        received=f"{np.count_nonzero(broken)} of {len(features)} examples: "
                        + ", ".join(str(shown[place]) for place in np.flatnonzero(broken)[:8]),
                        fix="mend or remove these images, or keep the features in float32",
                    )
                file.write(features.tobytes())
                others.append([np.asarray(column) for column in rest])
                sizes.append(len(features))
                self._tell(1)
            file.seek(0)
            self._write_header(file, sum(sizes))  # NumPy leaves room in it for the first axis
        flush(path)
        return others, sizes

    def _write_header(self, file: Any, rows: int) -> None:
        np.lib.format.write_array_header_1_0(
            file,
            {"descr": self._dtype.str, "fortran_order": False, "shape": (rows, *self._shape)},
        )

    def _refuse_full_disk(self, photos: int) -> None:
        one = int(np.prod(self._shape)) * self._dtype.itemsize
        needed = (self._total - self._done) * photos * one
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            raise TrainingError(
                f"the disk that holds {self._folder} has no room for the features",
                expected=f"{needed / 1e6:,.0f} MB: {self._shape} numbers a photo",
                received=f"{free / 1e6:,.0f} MB free",
                fix="free some space, keep fewer views, or let more of the model's end train anew",
            )

    def _tell(self, batches: int) -> None:
        self._done += batches
        if self._progress is not None:
            self._progress(self._done, self._total)
