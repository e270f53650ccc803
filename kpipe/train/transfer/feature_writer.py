"""Writing the features of one view: streamed to a temporary folder, which is then renamed."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np

from kpipe.atomic import flush
from kpipe.errors import TrainingError
from kpipe.train.loop.folded_batch_norm import folded_inference
from kpipe.train.transfer.feature_cache import COLUMNS
from kpipe.train.transfer.view_digests import damage, seal

__all__ = ["TEMPORARY", "FeatureWriter", "Progress"]

TEMPORARY = ".part"
Progress: TypeAlias = Callable[[int, int], None]
_BatchNames: TypeAlias = Callable[[int], Sequence[str]]


class FeatureWriter:
    """Write views, each complete or not at all."""

    def __init__(
        self, folder: Path, stem: keras.Model, dtype: str, total: int, progress: Progress | None
    ) -> None:
        self._folder = folder
        self._stem = folded_inference(stem)
        self._shape = tuple(stem.output.shape[1:])
        self._dtype = np.dtype(dtype)
        self._done, self._total, self._progress = 0, total, progress

    def skips(self, name: str, batches: int) -> bool:
        """Return whether a sound view exists; if so, count its batches as done.

        A damaged view is removed, with a warning.
        """
        view = self._folder / name
        if not os.path.lexists(view):
            return False
        if found := damage(view):
            warnings.warn(f"{view}: {found}; its features are computed again", stacklevel=2)
            # Renamed first: another training run may be doing the same, or renewing it.
            aside = self._folder / f"{name}-{secrets.token_hex(4)}{TEMPORARY}"
            with contextlib.suppress(FileNotFoundError):
                view.rename(aside)
                if aside.is_dir() and not aside.is_symlink():
                    shutil.rmtree(aside)
                else:
                    aside.unlink()
            return False
        self._report(batches)
        return True

    def write(
        self, name: str, data: Iterable[Any], batches: int | None, names: _BatchNames | None = None
    ) -> None:
        """Write one view.

        Args:
            name: of its folder.
            data: batches of photos.
            batches: the expected number of batches, or None.
            names: batch -> the names of its photos.
        """
        aside = self._folder / f"{name}-{secrets.token_hex(4)}{TEMPORARY}"
        aside.mkdir()
        try:
            others, sizes = self._write_features(aside / "features.npy", name, data, names)
            if len(sizes) != (batches or len(sizes)) or not sizes:
                raise TrainingError(
                    f"the data of {name} ended early",
                    expected=f"{batches or 'some'} batches",
                    received=str(len(sizes)),
                    fix="make the training data endless, as for fit",
                )
            for place, kind in enumerate(COLUMNS[1:]):
                if others and len(others[0]) > place:
                    column = np.concatenate([batch[place] for batch in others])
                    np.save(aside / f"{kind}.npy", column)
            ends = np.cumsum(sizes, dtype=np.int64)
            np.save(aside / "bounds.npy", np.stack([ends - sizes, ends], -1))
            seal(aside)
            try:
                aside.rename(self._folder / name)
            except OSError:
                if not (self._folder / name).exists():
                    raise
                # Another training run finished the same view first.
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _write_features(
        self, path: Path, view: str, data: Iterable[Any], names: _BatchNames | None
    ) -> tuple[list[list[np.ndarray]], list[int]]:
        """Stream features into a file; return labels and weights, and the size of each batch."""
        others: list[list[np.ndarray]] = []
        sizes: list[int] = []
        # On a full disk a plain write raises an error, while a memory map kills the process.
        with path.open("wb") as file:
            self._write_header(file, 0)
            for images, *rest in data:
                if not sizes:
                    self._refuse_full_disk(len(images))
                with np.errstate(over="ignore"):  # reported as an error below
                    features = self._stem(images).numpy().astype(self._dtype, copy=False)
                broken = ~np.isfinite(features).reshape(len(features), -1).all(axis=1)
                if broken.any():
                    shown = names(len(sizes)) if names is not None else range(len(features))
                    raise TrainingError(
                        f"features of batch {len(sizes)} of {view} are not finite",
                        expected=f"numbers in the range of {self._dtype}",
                        received=f"{np.count_nonzero(broken)} of {len(features)} examples: "
                        + ", ".join(str(shown[place]) for place in np.flatnonzero(broken)[:8]),
                        fix="repair or remove these images, or use dtype='float32'",
                    )
                file.write(features.tobytes())
                others.append([np.asarray(column) for column in rest])
                sizes.append(len(features))
                self._report(1)
            file.seek(0)
            self._write_header(file, sum(sizes))  # NumPy reserves space for the first axis
        flush(path)
        return others, sizes

    def _write_header(self, file: Any, rows: int) -> None:
        np.lib.format.write_array_header_1_0(
            file,
            {"descr": self._dtype.str, "fortran_order": False, "shape": (rows, *self._shape)},
        )

    def _refuse_full_disk(self, photos: int) -> None:
        bytes_per_photo = int(np.prod(self._shape)) * self._dtype.itemsize
        needed = (self._total - self._done) * photos * bytes_per_photo
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            raise TrainingError(
                f"not enough disk space for the features in {self._folder}",
                expected=f"{needed / 1e6:,.0f} MB: {self._shape} numbers per photo",
                received=f"{free / 1e6:,.0f} MB free",
                fix="free some space, store fewer views, or unfreeze fewer layers",
            )

    def _report(self, batches: int) -> None:
        self._done += batches
        if self._progress is not None:
            self._progress(self._done, self._total)
