"""The contact sheet: photos beside their augmented views.

    sheet := head  |          | original | epoch 1 | epoch 2 | ...
             row   | class    | photo    | view    | view    | ...     one photo
                                           labels    labels            with a mixer

Views use the seeds of the training run, so they are what the network sees in that epoch. Only
mixing differs: here a photo is mixed with another of the sheet, in training with one of its batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import tensorflow as tf
from PIL import Image, ImageDraw, ImageFont, ImageOps

from kpipe.data.augmentation.augmenter import Augmenter
from kpipe.data.augmentation.mixing import Mixer
from kpipe.data.loading.decoding import check_decoded
from kpipe.data.loading.epochs import draw_photos, mixing_seed
from kpipe.data.loading.training_options import TrainingOptions
from kpipe.data.manifest import Manifest
from kpipe.errors import DataError
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["contact_sheet"]

_CELL = 128
_GAP = 4
_LINE = 14
_NAME = 110
_INK = (29, 36, 51)
_PAPER = (255, 255, 255)


@names_wrong_kinds
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
    """Draw training photos beside their augmented views of the first epochs.

    Args:
        manifest: the photos, split.
        images: the result of `decode(manifest, ...)`: (photos, height, width, 3) uint8.
        augmenter: changes each photo.
        mixer: mixes photos; the mixed labels are then written beneath them.
        seed: seed of the training run.
        rows: largest number of photos, spread over the classes.
        views: number of epochs.

    Returns:
        An RGB picture, with at most 128 pixels for the side of a photo.

    Raises:
        DataError: if there are no training photos, the images do not belong to the manifest, or
            `rows` or `views` is below one.

    Example:
        >>> from kpipe.data import Augmenter, contact_sheet, decode, from_folder, split
        >>> manifest = split(from_folder("photos"), (1.0, 0.0, 0.0))
        >>> images = decode(manifest, 32, "decoded")
        >>> sheet = contact_sheet(manifest, images, Augmenter(flip="horizontal"), rows=3, views=2)
        >>> sheet.save("contact_sheet.jpg")
    """
    if rows < 1 or views < 1:
        raise DataError(
            f"a contact sheet of {rows} rows and {views} views is empty", expected="at least 1"
        )
    check_decoded(manifest, images)
    train = manifest.rows("train")
    places = _spread(manifest, rows)
    labels = manifest.labels("train")[places]
    photos = np.stack([images[row] for row in train[places]])
    cells = [[Image.fromarray(photo)] for photo in photos]
    captions = [[""] for _ in places]
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
            captions[row].append(_caption(target, manifest.classes))
    heads = ["", "original", *(f"epoch {number}" for number in range(1, views + 1))]
    names = [manifest.classes[label] for label in labels]
    return _draw(heads, names, cells, captions if mixer is not None else None)


def _spread(manifest: Manifest, rows: int) -> np.ndarray:
    """Positions in the training split: classes in turn, the smallest digests of each first."""
    table = manifest.table.iloc[manifest.rows("train")].reset_index(drop=True)
    known = sorted(set(table["label"]))
    if len(known) > rows:
        known = [known[place] for place in np.linspace(0, len(known) - 1, rows).astype(int)]
    table = table[table["label"].isin(known)].sort_values(["sha256", "label"], kind="stable")
    turn = table.groupby("label").cumcount()
    order = pd.DataFrame({"label": table["label"], "turn": turn}).sort_values(["turn", "label"])
    return order.head(rows).sort_values(["label", "turn"]).index.to_numpy(np.int64)


def _caption(label: np.ndarray, classes: Sequence[str]) -> str:
    """The two largest fractions of a mixed label: "70% shirt, 30% hat"."""
    largest = np.argsort(-label, kind="stable")[:2]
    return ", ".join(f"{label[at]:.0%} {classes[at]}" for at in largest if label[at] >= 0.005)


def _draw(
    heads: Sequence[str],
    names: Sequence[str],
    cells: Sequence[Sequence[Image.Image]],
    captions: Sequence[Sequence[str]] | None,
) -> Image.Image:
    font = ImageFont.load_default(11)
    width, height = _fit(cells[0][0]).size
    step_x, step_y = max(width, 64) + _GAP, height + _GAP + (_LINE if captions else 0)
    size = (_NAME + len(cells[0]) * step_x, _LINE + _GAP + len(cells) * step_y)
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)

    def write(x: int, y: int, text: str, room: int) -> None:
        pen.text((x, y), _shorten(text, font, room), fill=_INK, font=font)

    lefts = [_GAP, *range(_NAME, size[0], step_x)]
    for left, head in zip(lefts, heads, strict=True):
        write(left, 2, head, step_x - _GAP)
    for row, (name, photos) in enumerate(zip(names, cells, strict=True)):
        top = _LINE + _GAP + row * step_y
        write(_GAP, top, name, _NAME - 2 * _GAP)
        for left, photo in zip(lefts[1:], photos, strict=True):
            sheet.paste(_fit(photo), (left, top))
        if captions:
            for left, text in zip(lefts[1:], captions[row], strict=True):
                write(left, top + height, text, step_x - _GAP)
    return sheet


def _fit(photo: Image.Image) -> Image.Image:
    """A photo resized to fit a cell, in larger pixels if it is small."""
    return ImageOps.contain(photo, (_CELL, _CELL), Image.Resampling.BOX)


def _shorten(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, room: int) -> str:
    """The text, shortened to fit."""

    def fits(shown: str) -> bool:
        return font.getlength(shown) <= room

    shortened: Iterable[str] = (text[:end] + "..." for end in range(len(text) - 1, 0, -1))
    return text if fits(text) else next(filter(fits, shortened), "")
