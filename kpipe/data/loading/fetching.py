"""The pixels of chosen photos, inside a graph.

    decoded before   places (batch,) -> (batch, height, width, 3): rows of an array; of a mapped
                     file, which is read, not touched
    files            place () -> (height, width, 3):
                     JPEG in RGB or grey   TensorFlow decodes the window alone, at reduced scale
                     any other             Pillow, by `kpipe.pixels`, the one place of truth

All are uint8, RGB, upright, in [0, 255].

TensorFlow's pixels are Pillow's to one level of 255. It decodes a file only if that ends as a JPEG
does and is as large as the manifest says; any other goes to Pillow, whose errors name the file.
(Where the head of a file was damaged since it was listed, and neither its end nor its size,
TensorFlow's own error remains, which names none; `kpipe check` does.)
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

from kpipe.data.loading.decoding import load_unchanged
from kpipe.data.manifest import Manifest
from kpipe.errors import DataError
from kpipe.pixels import background_color
from kpipe.windows import window

__all__ = ["Fetch", "fetch_decoded", "fetch_files"]

Fetch = Callable[[tf.Tensor], tf.Tensor]
_Take = Callable[[np.ndarray], np.ndarray]

_JPEG = ("JPEG", "MPO")  # Pillow's word for a JPEG that further pictures follow
_MODES = ("RGB", "L")
# orientation of EXIF: (whether the sides change places, the axes that are then reversed)
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
    """Photos that were decoded before, a batch at a time.

    Args:
        images: (photos, height, width, 3) uint8. Of a memory map, the file is read: mapped pages
            would count as this process's memory, and 100,000 photos are many gigabytes.
        rows: (places,) positions in `images`.

    Raises:
        DataError: the file of a memory map was replaced.
    """
    take: _Take = images.__getitem__
    if isinstance(images, np.memmap) and images.filename and _is_the_file(images):
        take = _read_rows(images, images.filename)

    def fetch(places: tf.Tensor) -> tf.Tensor:
        taken = _stateless(lambda places: take(rows[places]), places)
        return tf.ensure_shape(taken, (None, *images.shape[1:]))

    return fetch


def fetch_files(
    manifest: Manifest, rows: np.ndarray, size: tuple[int, int], background: str = "white"
) -> Fetch:
    """Photos decoded as they are asked for, one at a time.

    One at a time, since a loop over a batch in the graph passes from thread to thread, which is
    slow where training takes the processors too.

    Args:
        manifest: with columns `format`, `mode` and `orientation`, or all goes by Pillow.
        rows: (places,) positions in its table.
        size: (height, width) in pixels.
        background: a CSS color, under transparent pixels.

    Raises:
        DataError: no such color.
    """
    background_color(background)
    table = manifest.table.iloc[rows]
    paths, digests = table["path"].to_numpy(), table["sha256"].to_numpy()

    def load(place: np.ndarray) -> np.ndarray:
        return load_unchanged(paths[place], digests[place], size, background)

    def by_pillow(place: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(_stateless(load, place), (*size, 3))

    simple = _is_simple(table)
    return _by_tensorflow(table, simple, size, by_pillow) if simple.any() else by_pillow


def _stateless(function: _Take, places: tf.Tensor) -> tf.Tensor:
    # Declared stateless, or deterministic mode would run the map one batch at a time.
    return tf.numpy_function(function, [places], tf.uint8, stateful=False)


def _is_the_file(images: np.memmap) -> bool:
    """Whether rows of the map are rows of its file: not so of views, and of changes in memory."""
    whole = isinstance(images.base, mmap.mmap) and images.flags.c_contiguous
    return whole and images.mode in ("r", "r+")


def _read_rows(images: np.memmap, name: str) -> _Take:
    count = images[0].nbytes
    status = os.stat(name)
    replaced = DataError(
        f"{name} was replaced after it was mapped",
        fix="map it again: np.load(file, mmap_mode='r')",
    )

    # Opened anew for each batch: TensorFlow never lets go of a function it was given.
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
    """Whether TensorFlow decodes a file as Pillow does: (photos,) bool."""
    if not {"format", "mode", "orientation"} <= set(table):
        return np.zeros(len(table), bool)
    known = table["format"].isin(_JPEG) & table["mode"].isin(_MODES)
    return (known & table["orientation"].isin(_TURNS)).to_numpy()


class _Plan(NamedTuple):
    """How TensorFlow decodes one photo; or many, a row each."""

    simple: Any  # () bool, else Pillow does
    stored: Any  # (3,) height, width and channels of the file
    box: Any  # (4,) top, left, height, width of what is decoded, in pixels of the shrunk photo
    start: Any  # (3,) of the window in the box
    extent: Any  # (3,) of the window
    lying: Any  # (2,) height and width wanted, before the turn
    decoder: Any  # () place among the distinct (shrink, smooth)
    turn: Any  # () place among the distinct orientations


def _by_tensorflow(
    table: pd.DataFrame, simple: np.ndarray, size: tuple[int, int], by_pillow: Fetch
) -> Fetch:
    rows, decoders, turns = _plans(table, simple, size)
    paths, plans = tf.constant(table["path"].to_numpy(object)), _Plan(*map(tf.constant, rows))

    def fetch(place: tf.Tensor) -> tf.Tensor:
        plan = _Plan(*(tf.gather(column, place) for column in plans))

        def tensorflow() -> tf.Tensor:
            content = tf.io.read_file(tf.gather(paths, place))
            listed = _is_as_listed(content, plan.stored)
            return tf.cond(listed, lambda: decoded(content), lambda: by_pillow(place))

        def decoded(content: tf.Tensor) -> tf.Tensor:
            image = _switch(plan.decoder, decoders, lambda how: _decoded(content, plan, *how))
            return _switch(plan.turn, turns, lambda turn: _turned(image, turn))

        if simple.all():
            return tf.ensure_shape(tensorflow(), (*size, 3))
        image = tf.cond(plan.simple, tensorflow, lambda: by_pillow(place))
        return tf.ensure_shape(image, (*size, 3))

    return fetch


def _plans(
    table: pd.DataFrame, simple: np.ndarray, size: tuple[int, int]
) -> tuple[_Plan, list[tuple[int, bool]], list[int]]:
    """The plans of all photos, and what their `decoder` and `turn` point to."""
    facts = np.ones((len(table), 4), np.int64)
    facts[simple, :3] = table.loc[simple, ["width", "height", "orientation"]]
    facts[:, 3] = np.where(table["mode"] == "L", 1, 3)
    kinds, kind = np.unique(facts, axis=0, return_inverse=True)
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
        # Color is interpolated between neighbors, so the outermost columns decoded may be off.
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


def _is_as_listed(content: tf.Tensor, stored: tf.Tensor) -> tf.Tensor:
    """Whether a file is a whole JPEG of the size that the manifest says."""
    end = tf.strings.substr(content, tf.maximum(tf.strings.length(content) - 2, 0), 2)
    whole = tf.io.is_jpeg(content) & (end == b"\xff\xd9")

    def fits() -> tf.Tensor:
        return tf.reduce_all(tf.image.extract_jpeg_shape(content) == stored)

    return tf.cond(whole, fits, lambda: False)


def _decoded(content: tf.Tensor, plan: _Plan, shrink: int, smooth: bool) -> tf.Tensor:
    """The window at the wanted size, as it lies in the file."""
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


def _turned(image: tf.Tensor, orientation: int) -> tf.Tensor:
    swapped, axes = _TURNS[orientation]
    image = tf.transpose(image, (1, 0, 2)) if swapped else image
    return tf.reverse(image, axes) if axes else image
