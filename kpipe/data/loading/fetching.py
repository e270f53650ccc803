"""Fetch the pixels of chosen photos inside a TensorFlow graph.

    decoded before   places (batch,) -> (batch, height, width, 3): rows of an array; a memory-mapped
                     file is read rather than mapped
    files            place () -> (height, width, 3):
                     JPEG in RGB or grey   TensorFlow decodes only the window, at reduced scale
                     any other             Pillow, by `kpipe.pixels`, which is the reference

All are uint8, RGB, upright, in [0, 255].

TensorFlow's pixels differ from Pillow's by at most one level of 255. It decodes a file only if that
ends as a JPEG does and has the size in the manifest; any other goes to Pillow, whose errors name
the file. (If only the head of a file was damaged since the scan, TensorFlow raises an error that
does not name the file; `kpipe check` does.)
"""

from __future__ import annotations

import io
import mmap
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf

from kpipe.crop_window import window
from kpipe.data.loading.decoding import load_unchanged
from kpipe.data.manifest import Manifest
from kpipe.errors import DataError
from kpipe.pixels import background_color

__all__ = ["Fetch", "fetch_decoded", "fetch_files"]

Fetch = Callable[[tf.Tensor], tf.Tensor]
_Take = Callable[[np.ndarray], np.ndarray]

_JPEG = ("JPEG", "MPO")  # MPO is a JPEG that further pictures follow
_MODES = ("RGB", "L")
# EXIF orientation: (whether height and width are swapped, the axes that are then reversed)
_TURNS = {
    1: (False, []),
    2: (False, [1]),
    3: (False, [0, 1]),
    4: (False, [0]),
    5: (True, []),
    6: (True, [1]),
    7: (True, [0, 1]),
    8: (True, [0]),
}


def fetch_decoded(images: np.ndarray, rows: np.ndarray) -> Fetch:
    """Return a function that fetches photos that were decoded before, a batch at a time.

    Args:
        images: (photos, height, width, 3) uint8. A memory-mapped file is read instead: mapped pages
            would count as memory of this process, and 100,000 photos are many gigabytes.
        rows: (places,) positions in `images`.

    Raises:
        DataError: if the file of a memory map was replaced.
    """
    take: _Take = images.__getitem__
    if isinstance(images, np.memmap) and images.filename and _mirrors_file(images):
        take = _read_rows(images, images.filename)

    def fetch(places: tf.Tensor) -> tf.Tensor:
        taken = _stateless(lambda places: take(rows[places]), places)
        return tf.ensure_shape(taken, (None, *images.shape[1:]))

    return fetch


def fetch_files(
    manifest: Manifest, rows: np.ndarray, size: tuple[int, int], background: str = "white"
) -> Fetch:
    """Return a function that decodes one photo at a time.

    A loop over a batch inside the graph would be rescheduled between threads at each step, which is
    slow while training keeps the processors busy.

    Args:
        manifest: the photos; without columns `format`, `mode` and `orientation`, Pillow decodes
            them all.
        rows: (places,) positions in its table.
        size: (height, width) in pixels.
        background: a CSS color, shown under transparent pixels.
    """
    background_color(background)
    table = manifest.table.iloc[rows]
    paths, digests = table["path"].to_numpy(), table["sha256"].to_numpy()

    def load(place: np.ndarray) -> np.ndarray:
        status = manifest.statuses.get(paths[place], "")
        return load_unchanged(paths[place], digests[place], status, size, background)

    def by_pillow(place: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(_stateless(load, place), (*size, 3))

    simple = _is_simple(table)
    return _by_tensorflow(table, simple, size, by_pillow) if simple.any() else by_pillow


def _stateless(function: _Take, places: tf.Tensor) -> tf.Tensor:
    # Unless declared stateless, deterministic mode would map one batch at a time.
    return tf.numpy_function(function, [places], tf.uint8, stateful=False)


def _mirrors_file(images: np.memmap) -> bool:
    """Whether rows of the map are rows of its file, which fails for views and private changes."""
    whole = isinstance(images.base, mmap.mmap) and images.flags.c_contiguous
    return whole and images.mode in ("r", "r+")


def _read_rows(images: np.memmap, name: str) -> _Take:
    count = images[0].nbytes
    status = os.stat(name)
    replaced = DataError(
        f"{name} was replaced after it was mapped",
        fix="map it again: np.load(file, mmap_mode='r')",
    )

    # Opened for each batch: TensorFlow never releases a function, nor a file that it holds.
    def read(rows: np.ndarray) -> np.ndarray:
        taken = np.empty((len(rows), *images.shape[1:]), np.uint8)
        with io.FileIO(name) as file:
            if not os.path.samestat(os.fstat(file.fileno()), status):
                raise replaced
            for image, row in zip(taken, rows.tolist(), strict=True):
                file.seek(images.offset + row * count)
                if file.readinto(image) != count:
                    raise DataError(f"{name} was cut off", fix="decode the photos again")
        return taken

    some = np.unique(np.linspace(0, len(images) - 1, 4).astype(int))
    if not np.array_equal(read(some), images[some]):
        raise replaced
    return read


def _is_simple(table: pd.DataFrame) -> np.ndarray:
    """Whether TensorFlow decodes each file as Pillow does: (photos,) bool."""
    if not {"format", "mode", "orientation"} <= set(table):
        return np.zeros(len(table), bool)
    known = table["format"].isin(_JPEG) & table["mode"].isin(_MODES)
    return (known & table["orientation"].isin(_TURNS)).to_numpy()


class _Plan(NamedTuple):
    """How to decode one photo; or many photos, with one row each."""

    simple: Any  # () bool: whether TensorFlow decodes it
    stored: Any  # (3,) height, width and channels of the file
    box: Any  # (4,) top, left, height, width of the decoded box, in pixels of the reduced photo
    start: Any  # (3,) start of the window in the box
    extent: Any  # (3,) size of the window
    lying: Any  # (2,) requested height and width, before the photo is turned upright
    decoder: Any  # () index into the distinct (shrink, smooth)
    turn: Any  # () index into the distinct orientations


def _by_tensorflow(
    table: pd.DataFrame, simple: np.ndarray, size: tuple[int, int], by_pillow: Fetch
) -> Fetch:
    rows, decoders, turns = _plans(table, simple, size)
    paths, plans = tf.constant(table["path"].to_numpy(object)), _Plan(*map(tf.constant, rows))

    def fetch(place: tf.Tensor) -> tf.Tensor:
        plan = _Plan(*(tf.gather(column, place) for column in plans))

        def tensorflow() -> tf.Tensor:
            content = tf.io.read_file(tf.gather(paths, place))
            unchanged = _is_as_scanned(content, plan.stored)
            return tf.cond(unchanged, lambda: decoded(content), lambda: by_pillow(place))

        def decoded(content: tf.Tensor) -> tf.Tensor:
            image = _switch(plan.decoder, decoders, lambda how: _decode_window(content, plan, *how))
            return _switch(plan.turn, turns, lambda turn: _turn_upright(image, turn))

        if simple.all():
            return tf.ensure_shape(tensorflow(), (*size, 3))
        image = tf.cond(plan.simple, tensorflow, lambda: by_pillow(place))
        return tf.ensure_shape(image, (*size, 3))

    return fetch


def _plans(
    table: pd.DataFrame, simple: np.ndarray, size: tuple[int, int]
) -> tuple[_Plan, list[tuple[int, bool]], list[int]]:
    """The plans of all photos, and what their `decoder` and `turn` index."""
    layouts = np.ones((len(table), 4), np.int64)
    layouts[simple, :3] = table.loc[simple, ["width", "height", "orientation"]]
    layouts[:, 3] = np.where(table["mode"] == "L", 1, 3)
    kinds, kind = np.unique(layouts, axis=0, return_inverse=True)
    cuts = []
    for width, height, orientation, channels in kinds.tolist():
        turned = _TURNS[orientation][0]
        stored = (height, width) if turned else (width, height)
        cuts.append((orientation, channels, stored, window(stored, size if turned else size[::-1])))
    decoders = sorted({(cut.shrink, cut.smooth) for *_, cut in cuts})
    turns = sorted({orientation for orientation, *_ in cuts})
    plans = []
    for orientation, channels, stored, cut in cuts:
        across = -(-stored[0] // cut.shrink)
        # Color is interpolated between neighbors, so the outermost decoded columns may be wrong.
        left = max(cut.left - 1, 0)
        right = min(cut.left + cut.width + 1, across)
        plans.append(
            _Plan(
                simple=True,
                stored=(*stored[::-1], channels),
                box=(cut.top, left, cut.height, right - left),
                start=(0, cut.left - left, 0),
                extent=(cut.height, cut.width, 3),
                lying=size[::-1] if _TURNS[orientation][0] else size,
                decoder=decoders.index((cut.shrink, cut.smooth)),
                turn=turns.index(orientation),
            )
        )
    columns = _Plan(
        *(np.array(column, np.int32)[kind.ravel()] for column in zip(*plans, strict=True))
    )
    return columns._replace(simple=simple), decoders, turns


def _switch(which: tf.Tensor, choices: list[Any], branch: Callable[[Any], tf.Tensor]) -> tf.Tensor:
    if len(choices) == 1:
        return branch(choices[0])
    return tf.switch_case(which, [lambda one=one: branch(one) for one in choices])


def _is_as_scanned(content: tf.Tensor, stored: tf.Tensor) -> tf.Tensor:
    """Whether a file is a complete JPEG of the size in the manifest."""
    end = tf.strings.substr(content, tf.maximum(tf.strings.length(content) - 2, 0), 2)
    whole = tf.io.is_jpeg(content) & (end == b"\xff\xd9")

    def fits() -> tf.Tensor:
        return tf.reduce_all(tf.image.extract_jpeg_shape(content) == stored)

    return tf.cond(whole, fits, lambda: False)


def _decode_window(content: tf.Tensor, plan: _Plan, shrink: int, smooth: bool) -> tf.Tensor:
    """The window at the requested size, not yet turned upright."""
    image = tf.io.decode_and_crop_jpeg(
        content,
        plan.box,
        channels=3,
        ratio=shrink,
        dct_method="INTEGER_ACCURATE",  # Pillow's
    )
    image = tf.slice(image, plan.start, plan.extent)
    image = tf.image.resize(image, plan.lying, antialias=smooth)
    # Pillow rounds where it averages and truncates where it interpolates.
    return tf.cast(image + 0.5 if smooth else image, tf.uint8)


def _turn_upright(image: tf.Tensor, orientation: int) -> tf.Tensor:
    swapped, axes = _TURNS[orientation]
    image = tf.transpose(image, (1, 0, 2)) if swapped else image
    return tf.reverse(image, axes) if axes else image
