"""The contact sheet: photos beside what a network will see of them.

    sheet := head  |          | original | epoch 1 | epoch 2 | ...
             row   | class    | photo    | view    | view    | ...     one photo
                                           shares    shares            with a mixer

A view is made from the very seeds of the training, so it is what the network will be shown in that
epoch. Mixing alone differs: here a photo's partner is another of the sheet, there one of its batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import tensorflow as tf
from PIL import Image, ImageDraw, ImageFont, ImageOps

from kpipe.data.augmentation.augmenter import Augmenter
from kpipe.data.augmentation.mixing import Mixer
from kpipe.data.loading.dataset import TrainingOptions
from kpipe.data.loading.epochs import draw_photos, mixing_seed
from kpipe.data.manifest import Manifest
from kpipe.errors import DataError

__all__ = ["contact_sheet"]

_CELL = 128
_GAP = 4
_LINE = 14
_NAME = 110
_INK = (29, 36, 51)
_PAPER = (255, 255, 255)


def contact_sheet(
    manifest: Manifest,
    images: np.ndarray,
    augmenter: Augmenter,
    *,
    mixer: Mixer | None = None,
    seed: int = 0,
    rows: int = 12,
    views: int = 6,
) -> Image.Image:
    """Training photos beside what a network will see of them in the first epochs.

    Args:
        manifest: the photos, split.
        images: what `decode(manifest, ...)` returned: (photos, height, width, 3) uint8.
        augmenter: changes each photo.
        mixer: mixes photos; the shares of the classes then stand beneath.
        seed: of the training.
        rows: photos at most, spread over the classes.
        views: epochs.

    Returns:
        An RGB picture; a photo takes 128 pixels at most.

    Raises:
        DataError: no training photos, or fewer than one row or view.
    """
    if rows < 1 or views < 1:
        raise DataError(f"a contact sheet of {rows} rows and {views} views is empty")
    train = manifest.rows("train")
    places = _spread(manifest, rows)
    labels = manifest.labels("train")[places]
    photos = np.stack([images[row] for row in train[places]])
    cells = [[Image.fromarray(photo)] for photo in photos]
    shares = [[""] for _ in places]
    training = TrainingOptions(seed)
    epochs = draw_photos(manifest, "train", training).batch(len(train)).take(views)
    for number, drawn in epochs.enumerate():
        seeds = tf.gather(drawn["seed"], tf.gather(tf.argsort(drawn["place"]), places))
        view = augmenter(tf.constant(photos), seeds)
        targets = tf.one_hot(labels, len(manifest.classes))
        if mixer is not None:
            view, targets = mixer(view, targets, mixing_seed(training, 1, number))
        for row, (photo, target) in enumerate(zip(view.numpy(), targets.numpy(), strict=True)):
            cells[row].append(Image.fromarray(photo))
            shares[row].append(_told(target, manifest.classes))
    heads = ["", "original", *(f"epoch {number}" for number in range(1, views + 1))]
    names = [manifest.classes[label] for label in labels]
    return _drawn(heads, names, cells, shares if mixer is not None else None)


def _spread(manifest: Manifest, rows: int) -> np.ndarray:
    """Places in the training split: the classes in turn, of each the smallest digests first."""
    table = manifest.table.iloc[manifest.rows("train")].reset_index(drop=True)
    known = sorted(set(table["label"]))
    if len(known) > rows:
        known = [known[place] for place in np.linspace(0, len(known) - 1, rows).astype(int)]
    table = table[table["label"].isin(known)].sort_values(["sha256", "label"], kind="stable")
    turn = table.groupby("label").cumcount()
    order = pd.DataFrame({"label": table["label"], "turn": turn}).sort_values(["turn", "label"])
    return order.head(rows).sort_values(["label", "turn"]).index.to_numpy(np.int64)


def _told(shares: np.ndarray, classes: Sequence[str]) -> str:
    """The two largest shares of a label: "70% shirt, 30% hat"."""
    largest = np.argsort(-shares, kind="stable")[:2]
    return ", ".join(f"{shares[at]:.0%} {classes[at]}" for at in largest if shares[at] >= 0.005)


def _drawn(
    heads: Sequence[str],
    names: Sequence[str],
    cells: Sequence[Sequence[Image.Image]],
    shares: Sequence[Sequence[str]] | None,
) -> Image.Image:
    font = ImageFont.load_default(11)
    width, height = _fitted(cells[0][0]).size
    step_x, step_y = max(width, 64) + _GAP, height + _GAP + (_LINE if shares else 0)
    size = (_NAME + len(cells[0]) * step_x, _LINE + _GAP + len(cells) * step_y)
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)

    def write(x: int, y: int, text: str, room: int) -> None:
        pen.text((x, y), _cut(text, font, room), fill=_INK, font=font)

    lefts = [_GAP, *range(_NAME, size[0], step_x)]
    for left, head in zip(lefts, heads, strict=True):
        write(left, 2, head, step_x - _GAP)
    for row, (name, photos) in enumerate(zip(names, cells, strict=True)):
        top = _LINE + _GAP + row * step_y
        write(_GAP, top, name, _NAME - 2 * _GAP)
        for left, photo in zip(lefts[1:], photos, strict=True):
            sheet.paste(_fitted(photo), (left, top))
        if shares:
            for left, text in zip(lefts[1:], shares[row], strict=True):
                write(left, top + height, text, step_x - _GAP)
    return sheet


def _fitted(photo: Image.Image) -> Image.Image:
    """A large photo reduced, a small one in larger pixels, into a cell."""
    return ImageOps.contain(photo, (_CELL, _CELL), Image.Resampling.BOX)


def _cut(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, room: int) -> str:
    """The text, or as much of its beginning as fits."""

    def fits(shown: str) -> bool:
        return font.getlength(shown) <= room

    shortened: Iterable[str] = (text[:end] + "..." for end in range(len(text) - 1, 0, -1))
    return text if fits(text) else next(filter(fits, shortened), "")
